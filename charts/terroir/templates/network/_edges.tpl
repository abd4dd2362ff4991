{{/* Ends of network edges, as peers of a NetworkPolicy rule. */}}

{{/* Pods of this release. Takes (dict "root" . "components" LIST). */}}
{{- define "terroir.ourPods" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ .components | toJson }}}
{{- end -}}

{{/* Pods of other namespaces, by the labels of both. */}}
{{- define "terroir.theirPods" -}}
- namespaceSelector:
    matchLabels:
      {{- toYaml .namespaceLabels | nindent 6 }}
  {{- with .podLabels }}
  podSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end -}}

{{- define "terroir.addresses" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "terroir.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "terroir.componentName" . | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "terroir.labels" . | nindent 4 }}
spec:
  policyTypes: [Ingress, Egress]
  podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
      app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{/* Callers of a service: those of this release, those of elsewhere, `helm test`, and who scrapes it. */}}
{{- define "terroir.serviceIngress" -}}
{{- $policy := .root.Values.networkPolicy -}}
- from:
    {{- with .ours }}
    {{- include "terroir.ourPods" (dict "root" $.root "components" .) | nindent 4 }}
    {{- end }}
    {{- include "terroir.theirPods" $policy.operators | nindent 4 }}
    {{- if .recommenders }}
    {{- include "terroir.theirPods" $policy.recommenders | nindent 4 }}
    {{- end }}
  ports:
    - {port: {{ include "terroir.port" .component }}, protocol: TCP}
- from:
    {{- include "terroir.ourPods" (dict "root" .root "components" (list "test")) | nindent 4 }}
  ports:
    - {port: {{ include "terroir.port" .component }}, protocol: TCP}
    - {port: 9090, protocol: TCP}
- from:
    {{- include "terroir.theirPods" $policy.prometheus | nindent 4 }}
  ports:
    - {port: 9090, protocol: TCP}
{{- end -}}

{{/* Other services of this release. Takes root and components. */}}
{{- define "terroir.serviceEgress" -}}
{{- range .components }}
- to:
    {{- include "terroir.ourPods" (dict "root" $.root "components" (list .)) | nindent 4 }}
  ports:
    - {port: {{ include "terroir.port" . }}, protocol: TCP}
{{- end }}
{{- end -}}

{{- define "terroir.storeEgress" -}}
{{- if .Values.store.enabled }}
- to:
    {{- include "terroir.ourPods" (dict "root" . "components" (list "store")) | nindent 4 }}
  ports:
    - {port: 9000, protocol: TCP}
{{- else }}
{{- include "terroir.externalStoreEgress" (dict "root" . "endpoint" (include "terroir.storeEndpoint" .)) }}
{{- end }}
{{- end -}}

{{- define "terroir.externalStoreEgress" -}}
- to:
    {{- include "terroir.addresses" .root.Values.networkPolicy.externalStore.cidrs | trim | nindent 4 }}
  ports:
    - {port: {{ include "terroir.urlPort" (default "https://aws" .endpoint) }}, protocol: TCP}
{{- end -}}

{{/* Where weights are copied from; whoever copies them reaches the store anyway. */}}
{{- define "terroir.modelEgress" -}}
{{- $model := .Values.inference.model -}}
{{- if and (eq $model.source "bucket") $model.bucket.endpoint }}
{{ include "terroir.externalStoreEgress" (dict "root" . "endpoint" $model.bucket.endpoint) }}
{{- end }}
{{- end -}}

{{/* The collector of traces, and issuers' public keys. */}}
{{- define "terroir.commonEgress" -}}
{{- with .Values.tracing.otlpEndpoint }}
- to:
    {{- include "terroir.theirPods" $.Values.networkPolicy.collector | nindent 4 }}
  ports:
    - {port: {{ include "terroir.urlPort" . }}, protocol: TCP}
{{- end }}
{{- $ports := list }}
{{- if ne .Values.tls.source "none" }}
{{- range .Values.access.issuers }}
{{- if hasPrefix "https://" .jwks }}{{ $ports = append $ports (include "terroir.urlPort" .jwks) }}{{ end }}
{{- end }}
{{- if and .Values.serviceAccountTokens.enabled (hasPrefix "https://" .Values.serviceAccountTokens.jwks) }}
{{- $ports = append $ports (include "terroir.urlPort" .Values.serviceAccountTokens.jwks) }}
{{- end }}
{{- end }}
{{- with $ports }}
- to:
    {{- include "terroir.addresses" $.Values.networkPolicy.identityProviders.cidrs | trim | nindent 4 }}
  ports:
    {{- range . | uniq | sortAlpha }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}
