{{/* The settings as JSON: what the values say, with `config` over it. The keys are those of Teleport's chart, unless
`config` has the same option in its own spelling. */}}
{{- define "handler.settings" -}}
{{- $given := .Values.config -}}
{{- $handler := .Values.eventHandler -}}
{{- $home := "/var/lib/teleport/plugins/event-handler" -}}
{{- $settings := dict "storage" (.Values.state.url | default $handler.storagePath) "timeout" $handler.timeout "window-size" $handler.windowSize -}}
{{- if include "handler.lease" . }}{{- $_ := set $settings "lease" "kubernetes" }}{{- $_ := set $settings "lease-name" (include "handler.leaseName" .) }}{{- end -}}
{{- $_ := set $settings "debug" $handler.debug -}}
{{- $_ := set $settings "concurrency" $handler.concurrency -}}
{{- with $handler.batch }}{{- $_ := set $settings "batch" . }}{{- end -}}
{{- with $handler.types }}{{- $_ := set $settings "types" (join "," .) }}{{- end -}}
{{- with $handler.skipEventTypes }}{{- $_ := set $settings "skip-event-types" (join "," .) }}{{- end -}}
{{- with $handler.skipSessionTypes }}{{- $_ := set $settings "skip-session-types" (join "," .) }}{{- end -}}
{{- with $handler.startTime }}{{- $_ := set $settings "start-time" . }}{{- end -}}
{{- with $handler.dryRun }}{{- $_ := set $settings "dry-run" . }}{{- end -}}

{{- $lock := $given.lock | default dict -}}
{{- if $handler.lock.enabled -}}
{{- if not (hasKey $lock "enabled") }}{{- $_ := set $settings "lock-enabled" true }}{{- end -}}
{{- if not (hasKey $lock "failed-attempts-count") }}{{- $_ := set $settings "lock-failed-attempts-count" $handler.lock.failedAttemptsCount }}{{- end -}}
{{- if not (hasKey $lock "period") }}{{- $_ := set $settings "lock-period" $handler.lock.period }}{{- end -}}
{{- if and $handler.lock.for (not (hasKey $lock "for")) }}{{- $_ := set $settings "lock-for" $handler.lock.for }}{{- end -}}
{{- end -}}

{{- $teleport := dict "addr" (.Values.teleport.address | default .Values.tbot.teleportProxyAddress | default .Values.tbot.teleportAuthAddress) -}}
{{- if or (include "handler.tbot.sidecar" .) (include "handler.identitySecret" .) -}}
{{- $file := .Values.tbot.enabled | ternary "identity" .Values.teleport.identitySecretPath -}}
{{- $_ := set $teleport "identity" (printf "%s/teleport-identity/%s" $home $file) -}}
{{- end -}}
{{- if not (hasKey ($given.teleport | default dict) "refresh-enabled") }}{{- $_ := set $teleport "refresh" (dict "enabled" true) }}{{- end -}}
{{- $_ := set $settings "teleport" $teleport -}}

{{- with .Values.fluentd -}}
{{- if .url -}}
{{- $fluentd := dict "url" .url "session-url" .sessionUrl -}}
{{- with .maxConnections }}{{- $_ := set $fluentd "max-connections" . }}{{- end -}}
{{- if include "handler.certificateSecret" $ -}}
{{- if or .certificate.caPath $.Values.certManager.enabled }}{{- $_ := set $fluentd "ca" (printf "%s/ca.crt" $home) }}{{- end -}}
{{- if or .certificate.certPath $.Values.certManager.enabled -}}
{{- $_ := set $fluentd "cert" (printf "%s/client.crt" $home) -}}
{{- $_ := set $fluentd "key" (printf "%s/client.key" $home) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "forward" (dict "fluentd" $fluentd) -}}
{{- end -}}
{{- end -}}

{{- with .Values.listener -}}
{{- if .enabled -}}
{{- $_ := set $settings "listen" (printf "%s:%d" .address (.port | int64)) -}}
{{- if .unprotected -}}
{{- $_ := set $settings "listen-unprotected" true -}}
{{- else -}}
{{- $_ := set $settings "listen-token-file" (printf "/etc/teleport-event-handler/listener/%s" .tokenSecret.key) -}}
{{- end -}}
{{- if .tlsSecretName -}}
{{- $_ := set $settings "listen-cert" "/etc/teleport-event-handler/listener-tls/tls.crt" -}}
{{- $_ := set $settings "listen-key" "/etc/teleport-event-handler/listener-tls/tls.key" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- include "handler.over" (dict "into" $settings "from" (deepCopy $given)) -}}
{{- toJson $settings -}}
{{- end -}}

{{- define "handler.tbot.config" -}}
{{- if .Values.tbot.customConfig -}}
{{ toYaml .Values.tbot.customConfig }}
{{- else -}}
version: v2
{{- with .Values.tbot.teleportProxyAddress }}
proxy_server: {{ . }}
{{- end }}
{{- with .Values.tbot.teleportAuthAddress }}
auth_server: {{ . }}
{{- end }}
onboarding:
  join_method: {{ .Values.tbot.joinMethod }}
  token: {{ include "handler.tbot.token" . }}
storage:
  type: memory
outputs:
  - type: identity
    destination:
      type: directory
      path: /identity
  {{- with .Values.tbot.outputs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.tbot.services }}
services:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
