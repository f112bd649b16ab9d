{{/* The agent's options: those of base/agent.yaml, and over them what the values say. */}}
{{- define "namegate.config" -}}
{{- $base := .Files.Get "files/agent.yaml" -}}
{{- with .Values.config -}}
{{- $base = toYaml (mergeOverwrite (fromYaml $base) .) -}}
{{- end -}}
{{- $base -}}
{{- end -}}
