{{/* The agent's options: those of base/agent.yaml, and over them what the values say. */}}
{{- define "namegate.config" -}}
{{- $base := .Files.Get "files/agent.yaml" -}}
{{- with .Values.config -}}
{{- $base = toYaml (mergeOverwrite (fromYaml $base) .) -}}
{{- end -}}
{{- with .Values.clusters.names -}}
{{- $clusters := list -}}
{{- range . -}}
{{- $clusters = append $clusters (dict "name" . "kubeconfig" (printf "/etc/namegate-clusters/%s" .)) -}}
{{- end -}}
{{- $base = toYaml (mergeOverwrite (fromYaml $base) (dict "clusters" $clusters)) -}}
{{- end -}}
{{- $base -}}
{{- end -}}
