{{- define "name" -}}
{{- .Values.name | default .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "account" -}}
{{- .Values.serviceAccount.create | ternary (.Values.serviceAccount.name | default (include "name" .)) (.Values.serviceAccount.name | default "default") }}
{{- end }}

{{/* Gateways select by `istio`: the name without what people put before it. */}}
{{- define "selector" -}}
{{- $labels := .Values.labels }}
app: {{ $labels.app | default (include "name" .) | quote }}
istio: {{ $labels.istio | default (include "name" . | trimPrefix "istio-") | quote }}
{{- end }}

{{- define "labels" -}}
{{- include "selector" . }}
app.kubernetes.io/name: {{ include "name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: istio
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- range $key, $value := omit .Values.labels "app" "istio" }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- with .Values.networkGateway }}
topology.istio.io/network: {{ . | quote }}
{{- end }}
{{- end }}
