{{/* What the schema cannot see. Each sentence says what to do. */}}
{{- define "handler.refuse" -}}
{{- $state := include "handler.state" . -}}
{{- $shared := or (eq $state "postgresql") (and (eq $state "bucket") (not (empty (include "handler.lease" .)))) -}}
{{- if and (gt (.Values.replicas | int64) 1) (not $shared) -}}
{{- fail (printf "replicas: %d: with this state one event handler works on it, a second one would deliver every event again or be refused by the lock; use 1, or state.kind=postgresql, in which any number share the work, or state.kind=bucket with a Lease, where the others stand by" (.Values.replicas | int64)) -}}
{{- end -}}
{{- if ne (has $state (list "postgresql" "bucket")) (not (empty .Values.state.url)) -}}
{{- fail "state.url and state.kind=postgresql or bucket belong together: set both, or none" -}}
{{- end -}}
{{- if and .Values.state.url (ne (eq $state "bucket") (hasPrefix "s3://" .Values.state.url)) -}}
{{- fail (printf "state.url does not fit state.kind=%s: postgresql://… is a database, s3://… a bucket" $state) -}}
{{- end -}}
{{- if and (eq $state "postgresql") (not (empty (include "handler.lease" .))) -}}
{{- fail "config.lease: replicas share the work in PostgreSQL without a Lease; leave it out" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" .Values.state.url -}}
{{- fail "state.url has a password, which would stand in a ConfigMap: leave it out, and give it as the variable PGPASSWORD from a Secret, by secrets.NAME.env" -}}
{{- end -}}
{{- if hasPrefix "public.ecr.aws/gravitational/" .Values.image.repository -}}
{{- fail (printf "image.repository: %s is Teleport's own plugin, which this chart does not run; leave it out, or name an image of teleport-event-handler" .Values.image.repository) -}}
{{- end -}}
{{- if not (or .Values.teleport.address .Values.tbot.teleportProxyAddress .Values.tbot.teleportAuthAddress (dig "teleport" "addr" "" .Values.config)) -}}
{{- fail "teleport.address is missing: give host:port of the Proxy or the Auth Service" -}}
{{- end -}}
{{- if not (or .Values.tbot.enabled .Values.teleport.identitySecretName (dig "teleport" "identity" "" .Values.config) (dig "teleport" "cert" "" .Values.config)) -}}
{{- fail "teleport.identitySecretName is missing: name the Secret with the identity, or set tbot.enabled" -}}
{{- end -}}
{{- if not (or .Values.fluentd.url .Values.config.sinks .Values.config.forward .Values.extraToml .Values.secrets .Values.extraEnv .Values.extraEnvFrom) -}}
{{- fail "there is no sink: set fluentd.url, or a table in config.sinks" -}}
{{- end -}}
{{- if and .Values.fluentd.url (not .Values.fluentd.sessionUrl) (not (index .Values.config "no-session-recordings")) (not (dig "forward" "fluentd" "session-url" "" .Values.config)) -}}
{{- fail "fluentd.sessionUrl is missing: give the URL of session recordings beside fluentd.url" -}}
{{- end -}}
{{- range $key, $value := dict "storage" "eventHandler.storagePath" "listen" "listener.address and listener.port" -}}
{{- if hasKey $.Values.config $key -}}
{{- fail (printf "config.%s: set %s instead, for volumes and probes must fit" $key $value) -}}
{{- end -}}
{{- end -}}
{{- if and (include "handler.tbot.sidecar" .) (not .Values.tbot.customConfig) -}}
{{- if not .Values.tbot.clusterName -}}
{{- fail "tbot.clusterName is missing: it is the name of the Teleport cluster" -}}
{{- end -}}
{{- if eq (empty .Values.tbot.teleportProxyAddress) (empty .Values.tbot.teleportAuthAddress) -}}
{{- fail "set one of tbot.teleportProxyAddress and tbot.teleportAuthAddress" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.crd.create (not .Values.tbot.enabled) -}}
{{- fail "crd.create needs tbot.enabled: the operator's resources are for tbot" -}}
{{- end -}}
{{- with .Values.certManager -}}
{{- if .enabled -}}
{{- if not (or .dnsNames .ipAddresses) -}}
{{- fail "certManager.dnsNames or certManager.ipAddresses is missing: the certificate of Fluentd needs a name" -}}
{{- end -}}
{{- if not (or .issuer.create (and .issuer.name .issuer.kind .issuer.group)) -}}
{{- fail "certManager.issuer.name is missing: name the issuer, or set certManager.issuer.create" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $state "volume") (empty .Values.state.volume) -}}
{{- fail "state.volume is missing: state.kind is volume, so give the volume's source" -}}
{{- end -}}
{{- $claim := .Values.persistentVolumeClaim -}}
{{- if and (eq $state "persistentVolumeClaim") $claim.enabled $claim.existingClaim (ne $claim.existingClaim (include "handler.fullname" .)) -}}
{{- with lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "handler.fullname" .) -}}
{{- if eq (dig "metadata" "annotations" "meta.helm.sh/release-name" "" .) $.Release.Name -}}
{{- fail (printf "persistentVolumeClaim.existingClaim: the state of this release is in the claim %s, which the upgrade would delete: leave existingClaim out, or copy the state and annotate the old claim with helm.sh/resource-policy=keep first" .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.listener.enabled -}}
{{- if or .Values.serviceMonitor.enabled .Values.podMonitor.enabled .Values.service.enabled -}}
{{- fail "listener.enabled is false: there is nothing to scrape; enable it, or turn off service, serviceMonitor and podMonitor" -}}
{{- end -}}
{{- end -}}
{{- end -}}
