{{/* Mounts that `start` and `check` both need; the state is not among them. */}}
{{- define "handler.mounts" -}}
- name: config
  mountPath: /etc/teleport-event-handler.toml
  subPath: teleport-event-handler.toml
  readOnly: true
{{- if or (include "handler.tbot.sidecar" .) (include "handler.identitySecret" .) }}
- name: teleport-identity
  mountPath: /var/lib/teleport/plugins/event-handler/teleport-identity
  readOnly: true
{{- end }}
{{- if include "handler.certificateSecret" . }}
- name: certificate
  mountPath: /var/lib/teleport/plugins/event-handler
  readOnly: true
{{- end }}
{{- if .Values.tls.existingCASecretName }}
- name: teleport-tls-ca
  mountPath: /etc/teleport-tls-ca
  readOnly: true
{{- end }}
{{- range $name, $_ := .Values.secrets }}
- name: secret-{{ $name }}
  mountPath: /etc/teleport-event-handler/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- if and .Values.listener.enabled (not .Values.listener.unprotected) }}
- name: listener
  mountPath: /etc/teleport-event-handler/listener
  readOnly: true
{{- end }}
{{- if and .Values.listener.enabled .Values.listener.tlsSecretName }}
- name: listener-tls
  mountPath: /etc/teleport-event-handler/listener-tls
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Whole directories are mounted, so that what is renewed is seen. */}}
{{- define "handler.volumes" -}}
- name: config
  configMap:
    name: {{ include "handler.fullname" . }}
    defaultMode: 0440
{{- if include "handler.tbot.sidecar" . }}
- name: teleport-identity
  emptyDir:
    medium: Memory
- name: join-token
  projected:
    sources:
      - serviceAccountToken:
          path: join-sa-token
          expirationSeconds: 600
          {{- with .Values.tbot.clusterName }}
          audience: {{ . }}
          {{- end }}
{{- with .Values.tbot.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- else if include "handler.identitySecret" . }}
- name: teleport-identity
  secret:
    secretName: {{ include "handler.identitySecret" . }}
    defaultMode: 0440
{{- end }}
{{- if include "handler.certificateSecret" . }}
{{- $made := .Values.certManager.enabled }}
- name: certificate
  secret:
    secretName: {{ include "handler.certificateSecret" . }}
    defaultMode: 0440
    items:
      {{- with $made | ternary "ca.crt" .Values.fluentd.certificate.caPath }}
      - key: {{ . }}
        path: ca.crt
      {{- end }}
      {{- with $made | ternary "tls.crt" .Values.fluentd.certificate.certPath }}
      - key: {{ . }}
        path: client.crt
      - key: {{ $made | ternary "tls.key" $.Values.fluentd.certificate.keyPath }}
        path: client.key
      {{- end }}
{{- end }}
{{- with .Values.tls.existingCASecretName }}
- name: teleport-tls-ca
  secret:
    secretName: {{ . }}
{{- end }}
{{- range $name, $secret := .Values.secrets }}
- name: secret-{{ $name }}
  secret:
    secretName: {{ $secret.secretName }}
    defaultMode: 0440
    {{- with $secret.items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $secret.optional }}
    optional: true
    {{- end }}
{{- end }}
{{- if and .Values.listener.enabled (not .Values.listener.unprotected) }}
- name: listener
  secret:
    secretName: {{ include "handler.listenerSecret" . }}
    defaultMode: 0440
{{- end }}
{{- if and .Values.listener.enabled .Values.listener.tlsSecretName }}
- name: listener-tls
  secret:
    secretName: {{ .Values.listener.tlsSecretName }}
    defaultMode: 0440
{{- end }}
- name: tmp
  emptyDir: {}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "handler.state.volume" -}}
{{- $claim := .Values.persistentVolumeClaim -}}
{{- $state := include "handler.state" . -}}
{{- if eq $state "persistentVolumeClaim" -}}
- name: {{ $claim.volumeName }}
  persistentVolumeClaim:
    claimName: {{ $claim.existingClaim | default (include "handler.fullname" .) }}
{{- else if eq $state "volume" -}}
- name: {{ $claim.volumeName }}
  {{- toYaml .Values.state.volume | nindent 2 }}
{{- else if eq $state "emptyDir" -}}
- name: {{ $claim.volumeName }}
  emptyDir: {{ toJson .Values.state.emptyDir }}
{{- end -}}
{{- end -}}

{{/* Environment that `start` and `check` both need. */}}
{{- define "handler.environment" -}}
- name: TELEPORT_PLUGIN_FAIL_FAST
  value: "true"
{{- if .Values.tls.existingCASecretName }}
- name: SSL_CERT_FILE
  value: /etc/teleport-tls-ca/{{ .Values.tls.existingCASecretKeyName }}
{{- end }}
{{- range $name, $secret := .Values.secrets }}
{{- range $variable, $key := $secret.env }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret.secretName }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* dict "root" $ "arguments" […] */}}
{{- define "handler.container" -}}
{{- with .root -}}
image: {{ include "handler.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.command }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
args:
  {{- toYaml $.arguments | nindent 2 }}
env:
  {{- include "handler.environment" . | nindent 2 }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Health checks need no token. They need a certificate of theirs where the listener asks for one, which the kubelet has not: */}}
{{/* dict "root" $ "path" "/healthz" "probe" {…} */}}
{{- define "handler.probe" -}}
{{- if index .root.Values.config "listen-client-ca" -}}
tcpSocket:
  port: http
{{- else -}}
httpGet:
  path: {{ .path }}
  port: http
  {{- if include "handler.listenerTls" .root }}
  scheme: HTTPS
  {{- end }}
{{- end }}
{{ omit .probe "enabled" | toYaml }}
{{- end -}}

{{/* dict "root" $ "once" true|false */}}
{{- define "handler.tbot.container" -}}
{{- with .root.Values.tbot -}}
name: tbot
image: {{ .image }}:{{ .teleportVersionOverride | default .version }}
imagePullPolicy: {{ .imagePullPolicy }}
args:
  - start
  - -c
  - /config/tbot.yaml
  {{- if $.once }}
  - --oneshot
  {{- end }}
  {{- if .debug }}
  - --debug
  {{- end }}
  {{- with .extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  - name: KUBERNETES_TOKEN_PATH
    value: /var/run/secrets/tokens/join-sa-token
  {{- if .anonymousTelemetry }}
  - name: TELEPORT_ANONYMOUS_TELEMETRY
    value: "1"
  {{- end }}
  {{- with .extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- toYaml $.root.Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .resources | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /config/tbot.yaml
    subPath: tbot.yaml
    readOnly: true
  - name: join-token
    mountPath: /var/run/secrets/tokens
    readOnly: true
  - name: teleport-identity
    mountPath: /identity
  {{- with .extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Where and how a pod runs: for `start` and `check`. */}}
{{- define "handler.placement" -}}
serviceAccountName: {{ include "handler.serviceAccount" . }}
automountServiceAccountToken: {{ or .Values.serviceAccount.automount (not (empty (include "handler.lease" .))) }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "affinity" "tolerations" "topologySpreadConstraints" "hostAliases" "dnsConfig" }}
{{- with index $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- end -}}

{{- define "handler.pod" -}}
metadata:
  annotations:
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.annotations.pod | default .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "handler.selector" . | nindent 4 }}
    {{- with merge (dict) .Values.extraLabels.pod .Values.extraLabels.all }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "handler.placement" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "handler.grace" . }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: teleport-plugin-event-handler
      {{- $arguments := concat (list "start" "--config" "/etc/teleport-event-handler.toml") .Values.extraArgs }}
      {{- include "handler.container" (dict "root" . "arguments" $arguments) | nindent 6 }}
      {{- if .Values.listener.enabled }}
      ports:
        - name: http
          containerPort: {{ .Values.listener.port }}
          protocol: TCP
      {{- with .Values.probes.startup }}
      {{- if .enabled }}
      startupProbe:
        {{- include "handler.probe" (dict "root" $ "path" "/healthz" "probe" .) | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with .Values.probes.liveness }}
      {{- if .enabled }}
      livenessProbe:
        {{- include "handler.probe" (dict "root" $ "path" "/healthz" "probe" .) | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with .Values.probes.readiness }}
      {{- if .enabled }}
      readinessProbe:
        {{- include "handler.probe" (dict "root" $ "path" "/readyz" "probe" .) | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- end }}
      volumeMounts:
        {{- include "handler.mounts" . | nindent 8 }}
        {{- if not (has (include "handler.state" .) (list "mounted" "postgresql" "bucket")) }}
        - name: {{ .Values.persistentVolumeClaim.volumeName }}
          mountPath: {{ .Values.eventHandler.storagePath }}
        {{- end }}
    {{- if include "handler.tbot.sidecar" . }}
    - {{ include "handler.tbot.container" (dict "root" . "once" false) | nindent 6 | trim }}
    {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "handler.volumes" . | nindent 4 }}
    {{- with include "handler.state.volume" . }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
