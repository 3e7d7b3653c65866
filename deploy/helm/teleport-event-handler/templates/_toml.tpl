{{/* TOML of a map: dict "table" {…} "path" "a.b". Helm's own toToml writes whole numbers as 20.0. */}}
{{- define "handler.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if not (kindIs "map" $value) }}
{{ include "handler.toml.key" $key }} = {{ include "handler.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $name := include "handler.toml.key" $key }}
{{- $inner := empty $path | ternary $name (printf "%s.%s" $path $name) }}
{{- if include "handler.toml.header" $value }}

[{{ $inner }}]
{{- end }}
{{- include "handler.toml" (dict "table" $value "path" $inner) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether a table needs a header: it is empty, or has more than tables. */}}
{{- define "handler.toml.header" -}}
{{- if not . -}}true{{- end -}}
{{- range . -}}{{- if not (kindIs "map" .) -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- define "handler.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toRawJson . }}{{- end -}}
{{- end -}}

{{- define "handler.toml.value" -}}
{{- if kindIs "slice" . -}}
[{{ range $at, $item := . }}{{ if $at }}, {{ end }}{{ include "handler.toml.value" $item }}{{ end }}]
{{- else if kindIs "map" . -}}
{ {{- $first := true }}{{ range $key, $item := . }}{{ if not $first }},{{ end }} {{ include "handler.toml.key" $key }} = {{ include "handler.toml.value" $item }}{{ $first = false }}{{ end }} }
{{- else if kindIs "string" . -}}
{{ toRawJson . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ printf "%.0f" . }}
{{- else -}}
{{ toString . }}
{{- end -}}
{{- end -}}

{{/* Lay the map `from` over the map `into`, which is changed. Unlike mergeOverwrite this lets false, 0 and [] win. */}}
{{- define "handler.over" -}}
{{- range $key, $value := .from -}}
{{- $there := get $.into $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $there) -}}
{{- include "handler.over" (dict "into" $there "from" $value) -}}
{{- else -}}
{{- $_ := set $.into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
