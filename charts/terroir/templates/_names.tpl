{{/* Names and labels. Names are short enough for what operators append to them (KubeRay: 22 characters). */}}

{{- define "terroir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: what selectors use. Takes (dict "root" . "component" NAME). */}}
{{- define "terroir.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{- define "terroir.labels" -}}
{{ include "terroir.selectorLabels" . }}
{{ include "terroir.commonLabels" .root }}
{{- end -}}

{{/* Without the component, for objects of all of them. */}}
{{- define "terroir.releaseLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{ include "terroir.commonLabels" . }}
{{- end -}}

{{- define "terroir.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/part-of: terroir
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* Labels of Ray pods: without app.kubernetes.io/name, by which KubeRay's own Service finds the head. */}}
{{- define "terroir.rayLabels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
app.kubernetes.io/part-of: terroir
{{- end -}}

{{- define "terroir.componentName" -}}
{{ include "terroir.fullname" .root }}-{{ .component }}
{{- end -}}

{{/* Name by which one service dials another: host:port. */}}
{{- define "terroir.target" -}}
{{ include "terroir.componentName" . }}.{{ .root.Release.Namespace }}.svc:{{ include "terroir.port" .component }}
{{- end -}}

{{- define "terroir.port" -}}
{{ get (dict "dataset" "7101" "training" "7102" "registry" "7103" "inference" "7104") . }}
{{- end -}}

{{- define "terroir.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $repository := ternary $image.repository (printf "%s/%s" .root.Values.images.registry $image.repository) (empty .root.Values.images.registry) -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "terroir.rayName" -}}
{{ include "terroir.fullname" . }}-ray
{{- end -}}

{{/* Secret with Ray's token; KubeRay names the one that it makes as the cluster. */}}
{{- define "terroir.rayTokenSecret" -}}
{{ default (include "terroir.rayName" .) .Values.ray.existingSecret }}
{{- end -}}

{{/* Secret with the identity of a component or of the operator. */}}
{{- define "terroir.tlsSecret" -}}
{{- if eq .root.Values.tls.source "existingSecrets" -}}
{{ index .root.Values.tls.existingSecrets .component }}
{{- else -}}
{{ include "terroir.componentName" . }}-tls
{{- end -}}
{{- end -}}

{{/* Names in a certificate, the first of them the principal's in access rules. */}}
{{- define "terroir.certificateNames" -}}
{{- $service := include "terroir.componentName" . -}}
{{- $names := list (printf "terroir-%s" .component) -}}
{{- if ne .component "operator" -}}
{{- $at := printf "%s.%s" $service .root.Release.Namespace -}}
{{- $names = concat $names (list $service $at (printf "%s.svc" $at) (printf "%s.svc.%s" $at .root.Values.clusterDomain) "localhost") -}}
{{- end -}}
{{ $names | uniq | toJson }}
{{- end -}}

{{- define "terroir.storeSecret" -}}
{{- if .Values.store.enabled -}}
{{ default (printf "%s-store" (include "terroir.fullname" .)) .Values.store.existingSecret }}
{{- else -}}
{{ .Values.store.external.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "terroir.storeEndpoint" -}}
{{- if .Values.store.enabled -}}
http://{{ include "terroir.fullname" . }}-store.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{ .Values.store.external.endpoint }}
{{- end -}}
{{- end -}}

{{/* Port of an address: what it says, or the scheme's. */}}
{{- define "terroir.urlPort" -}}
{{- $stated := regexFind ":[0-9]+$" (urlParse .).host -}}
{{- if $stated -}}
{{ trimPrefix ":" $stated }}
{{- else -}}
{{ ternary "80" "443" (hasPrefix "http://" .) }}
{{- end -}}
{{- end -}}
