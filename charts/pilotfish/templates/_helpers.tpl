{{/* Suffix of names of a revision. */}}
{{- define "suffix" -}}
{{- if and .Values.revision (ne .Values.revision "default") }}-{{ .Values.revision }}{{ end }}
{{- end }}

{{/* The revision as labels say it. */}}
{{- define "rev" -}}
{{- .Values.revision | default "default" }}
{{- end }}

{{- define "labels" -}}
app: istiod
istio: pilot
istio.io/rev: {{ include "rev" . | quote }}
app.kubernetes.io/name: istiod
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: istio
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "selector" -}}
app: istiod
{{- if include "suffix" . }}
istio.io/rev: {{ include "rev" . | quote }}
{{- else }}
istio: pilot
{{- end }}
{{- end }}

{{- define "image" -}}
{{- if contains "/" .Values.image }}{{ .Values.image }}
{{- else }}{{ .Values.hub }}/{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}{{ with .Values.variant }}-{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* Whether several replicas may run. */}}
{{- define "several" -}}
{{- if or (and .Values.autoscaleEnabled (gt (int .Values.autoscaleMax) 1) (gt (int .Values.autoscaleMin) 1)) (and (not .Values.autoscaleEnabled) (gt (int .Values.replicaCount) 1)) }}true{{ end }}
{{- end }}

{{/* The mesh's settings: ours, and what the user says over them. */}}
{{- define "mesh" -}}
{{- $ns := .Values.global.istioNamespace }}
{{- $address := printf "istiod%s.%s.svc:15012" (include "suffix" .) $ns }}
{{- $ours := dict "trustDomain" "cluster.local" "rootNamespace" $ns "enablePrometheusMerge" true }}
{{- $proxy := dict "discoveryAddress" $address }}
{{- with .Values.global.meshID }}{{ $_ := set $proxy "meshId" . }}{{ end }}
{{- with .Values.global.variant }}{{ $_ := set $proxy "image" (dict "imageType" .) }}{{ end }}
{{- $_ := set $ours "defaultConfig" $proxy }}
{{- if and .Values.telemetry.enabled .Values.telemetry.v2.enabled .Values.telemetry.v2.prometheus.enabled }}
{{- $_ := set $ours "defaultProviders" (dict "metrics" (list "prometheus")) }}
{{- end }}
{{- toYaml (mustMergeOverwrite $ours (deepCopy .Values.meshConfig)) }}
{{- end }}

{{/* The mesh's roots, if there are any yet: a configuration that is new should not refuse Pods until the control plane has seen it. */}}
{{- define "roots" -}}
{{- if not .Values.istiodRemote.injectionURL }}
{{- with lookup "v1" "ConfigMap" .Values.global.istioNamespace "istio-ca-root-cert" }}{{ dig "data" "root-cert.pem" "" . | b64enc }}{{ end }}
{{- end }}
{{- end }}

{{/* Where the API server calls a webhook; the context is a list of root, path and bundle. */}}
{{- define "client" -}}
{{- $root := index . 0 }}
{{- if and $root.Values.istiodRemote.injectionURL (index . 2) }}
url: {{ $root.Values.istiodRemote.injectionURL | quote }}
{{- else }}
service:
  name: istiod{{ include "suffix" $root }}
  namespace: {{ $root.Values.global.istioNamespace }}
  path: {{ index . 1 | quote }}
  port: 443
{{- end }}
{{- with $root.Values.istiodRemote.injectionCABundle | default (include "roots" $root) }}
caBundle: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Entries of a mutating configuration; the context is a list of root, the revision or tag, and whether it is the default. */}}
{{- define "injectors" -}}
{{- $root := index . 0 }}
{{- $rev := index . 1 }}
{{- $default := index . 2 }}
{{- $never := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- $noInjection := dict "key" "istio-injection" "operator" "DoesNotExist" }}
{{- $noRev := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $isRev := dict "key" "istio.io/rev" "operator" "In" "values" (list $rev) }}
{{- $entries := list
  (dict "name" "rev.namespace" "ns" (list $isRev $noInjection) "pod" (list $never))
  (dict "name" "rev.object" "ns" (list $noRev $noInjection) "pod" (list $never $isRev)) }}
{{- if $default }}
{{- $enabled := dict "key" "istio-injection" "operator" "In" "values" (list "enabled") }}
{{- $asks := dict "key" "sidecar.istio.io/inject" "operator" "In" "values" (list "true") }}
{{- $entries = concat $entries (list
  (dict "name" "namespace" "ns" (list $enabled) "pod" (list $never))
  (dict "name" "object" "ns" (list $noInjection $noRev) "pod" (list $asks $noRev))) }}
{{- if $root.Values.sidecarInjectorWebhook.enableNamespacesByDefault }}
{{- $system := dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" (list "kube-system" "kube-public" "kube-node-lease" "local-path-storage") }}
{{- $silent := dict "key" "sidecar.istio.io/inject" "operator" "DoesNotExist" }}
{{- $entries = append $entries (dict "name" "auto" "ns" (list $noInjection $noRev $system) "pod" (list $silent $noRev)) }}
{{- end }}
{{- end }}
{{- range $entries }}
- name: {{ .name }}.sidecar-injector.istio.io
  clientConfig:
    {{- include "client" (list $root $root.Values.istiodRemote.injectionPath true) | trim | nindent 4 }}
  rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  reinvocationPolicy: {{ $root.Values.sidecarInjectorWebhook.reinvocationPolicy }}
  namespaceSelector:
    matchExpressions:
    {{- toYaml .ns | nindent 4 }}
  objectSelector:
    matchExpressions:
    {{- toYaml .pod | nindent 4 }}
{{- end }}
{{- end }}

{{/* What is rendered where. */}}
{{- define "cluster-scoped" -}}{{ if ne .Values.global.resourceScope "namespace" }}true{{ end }}{{- end }}
{{- define "namespace-scoped" -}}{{ if ne .Values.global.resourceScope "cluster" }}true{{ end }}{{- end }}

{{/* A Service in front of the control plane; the context is a list of root, name, and tag. */}}
{{- define "service" -}}
{{- $ := index . 0 }}
apiVersion: v1
kind: Service
metadata:
  name: {{ index . 1 }}
  namespace: {{ $.Values.global.istioNamespace }}
  labels:
    {{- include "labels" $ | nindent 4 }}
    {{- with index . 2 }}
    istio.io/tag: {{ . | quote }}
    {{- end }}
  {{- with $.Values.serviceAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $.Values.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  {{- with $.Values.ipFamilies }}
  ipFamilies:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    {{- include "selector" $ | nindent 4 }}
  ports:
  - name: grpc-xds
    port: 15010
    protocol: TCP
  - name: https-dns
    port: 15012
    protocol: TCP
  - name: https-webhook
    port: 443
    targetPort: 15017
    protocol: TCP
  - name: http-monitoring
    port: 15014
    protocol: TCP
{{- end }}
