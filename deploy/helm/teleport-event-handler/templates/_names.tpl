{{/* Names are those of Teleport's chart, so that an upgrade from it changes objects in place and keeps the claim. */}}
{{- define "handler.name" -}}
{{- .Values.nameOverride | default "teleport-plugin-event-handler" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "handler.fullname" -}}
{{- $name := .Values.nameOverride | default "teleport-plugin-event-handler" -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "handler.selector" -}}
app.kubernetes.io/name: {{ include "handler.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "handler.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "handler.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.extraLabels.all }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: dict "root" $ "name" "…" "labels" {…} "annotations" {…} */}}
{{- define "handler.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "handler.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "handler.tbot.name" -}}
{{- .Values.tbot.fullnameOverride | default (printf "%s-%s" .Release.Name (.Values.tbot.nameOverride | default "tbot")) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "handler.tbot.token" -}}
{{- .Values.tbot.token | default (include "handler.tbot.name" .) -}}
{{- end -}}

{{- define "handler.tbot.sidecar" -}}
{{- if and .Values.tbot.enabled (eq .Values.tbot.mode "sidecar") -}}true{{- end -}}
{{- end -}}

{{- define "handler.tbot.serviceAccount" -}}
{{- .Values.tbot.serviceAccount.name | default (include "handler.tbot.name" .) -}}
{{- end -}}

{{/* The join token of a sidecar allows one service account, which is the pod's then. */}}
{{- define "handler.serviceAccount" -}}
{{- if include "handler.tbot.sidecar" . -}}
{{- include "handler.tbot.serviceAccount" . -}}
{{- else if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "handler.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "handler.identitySecret" -}}
{{- $tbot := .Values.tbot.defaultOutput.secretName | default (printf "%s-out" (include "handler.tbot.name" .)) -}}
{{- .Values.teleport.identitySecretName | default (.Values.tbot.enabled | ternary $tbot "") -}}
{{- end -}}

{{- define "handler.certificateSecret" -}}
{{- .Values.certManager.enabled | ternary (printf "%s-client-tls" (include "handler.fullname" .)) .Values.fluentd.certificate.secretName -}}
{{- end -}}

{{- define "handler.listenerSecret" -}}
{{- .Values.listener.tokenSecret.name | default (printf "%s-listener" (include "handler.fullname" .)) -}}
{{- end -}}

{{- define "handler.listenerTls" -}}
{{- if or .Values.listener.tlsSecretName (index .Values.config "listen-cert") -}}true{{- end -}}
{{- end -}}

{{/* Where the state is; see `state.kind` in values.yaml. A mount above the default path does not count: the certificates are mounted
between the two, and cannot be written. */}}
{{- define "handler.state" -}}
{{- $mounted := "" -}}
{{- $path := .Values.eventHandler.storagePath -}}
{{- $below := hasPrefix "/var/lib/teleport/plugins/event-handler/" $path -}}
{{- range .Values.volumeMounts -}}
{{- if or (eq (trimSuffix "/" .mountPath) (trimSuffix "/" $path)) (and (not $below) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $path)) -}}
{{- $mounted = "mounted" -}}
{{- end -}}
{{- end -}}
{{- $claim := .Values.persistentVolumeClaim -}}
{{- .Values.state.kind | default $mounted | default (not (or $claim.enabled $claim.existingClaim) | ternary "emptyDir" "persistentVolumeClaim") -}}
{{- end -}}

{{/* Whether pods take turns by a Lease. */}}
{{- define "handler.lease" -}}
{{- $default := eq (include "handler.state" .) "bucket" | ternary "kubernetes" "none" -}}
{{- if eq (get .Values.config "lease" | default $default) "kubernetes" -}}true{{- end -}}
{{- end -}}

{{/* The name of the Lease. */}}
{{- define "handler.leaseName" -}}
{{- get .Values.config "lease-name" | default (include "handler.fullname" .) -}}
{{- end -}}

{{/* Seconds of a duration as 1m30s; parts of a second count as a whole one. */}}
{{- define "handler.seconds" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9.]+(ns|us|µs|μs|ms|s|m|h)" (toString .) -1 -}}
{{- $unit := regexFind "[^0-9.]+$" . -}}
{{- $number := trimSuffix $unit . | float64 -}}
{{- $total = addf $total (mulf $number (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) $unit | default 0.0)) -}}
{{- end -}}
{{- ceil $total | int64 -}}
{{- end -}}

{{- define "handler.grace" -}}
{{- $shutdown := include "handler.seconds" (get .Values.config "shutdown-timeout" | default "5s") | int64 -}}
{{- $given := .Values.terminationGracePeriodSeconds | int64 -}}
{{- if and $given (lt $given (add $shutdown 5)) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is too short for config.shutdown-timeout (%ds): leave it out, or give at least %d" $given $shutdown (add $shutdown 5)) -}}
{{- end -}}
{{- $given | default (add $shutdown 25) -}}
{{- end -}}

{{- define "handler.image" -}}
{{- with .Values.image -}}
{{- .repository -}}
{{- if .digest -}}@{{ .digest }}{{- else -}}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}
