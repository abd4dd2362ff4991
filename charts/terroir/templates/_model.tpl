{{/* The base model's weights: a volume for every pod that reads them, at /models. */}}

{{- define "terroir.modelFolder" -}}
{{- $path := .Values.inference.model.path -}}
/models{{ with $path }}/{{ . }}{{ end }}
{{- end -}}

{{- define "terroir.baseSources" -}}
{{ dict .Values.inference.model.id (include "terroir.modelFolder" .) | toJson }}
{{- end -}}

{{- define "terroir.hasModelVolume" -}}
{{- if ne .Values.inference.model.source "embedded" }}yes{{ end -}}
{{- end -}}

{{- define "terroir.modelMounts" -}}
{{- if include "terroir.hasModelVolume" . }}
- name: model
  mountPath: /models
  readOnly: true
{{- end }}
{{- end -}}

{{- define "terroir.modelVolumes" -}}
{{- $model := .Values.inference.model -}}
{{- if eq $model.source "pvc" }}
- name: model
  persistentVolumeClaim:
    claimName: {{ $model.pvc.claimName | quote }}
    readOnly: true
{{- else if eq $model.source "image" }}
- name: model
  image:
    reference: {{ $model.image.reference | quote }}
    pullPolicy: {{ $model.image.pullPolicy | quote }}
{{- else if eq $model.source "bucket" }}
- name: model
  emptyDir:
    sizeLimit: {{ $model.bucket.sizeLimit | quote }}
{{- end }}
{{- end -}}

{{/* Copies the weights before the pod starts. Takes (dict "root" . "image" KEY). */}}
{{- define "terroir.modelInit" -}}
{{- $bucket := .root.Values.inference.model.bucket -}}
{{- if eq .root.Values.inference.model.source "bucket" }}
{{- $endpoint := default (include "terroir.storeEndpoint" .root) $bucket.endpoint -}}
{{- $region := default .root.Values.store.external.region $bucket.region -}}
{{- $secret := default (include "terroir.storeSecret" .root) $bucket.existingSecret }}
- name: model
  image: {{ include "terroir.image" . | quote }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy | quote }}
  command: [python, -m, terroir.store.fetch]
  args:
    - {{ $bucket.url }}
    - /models
    {{- with $endpoint }}
    - --endpoint={{ . }}
    {{- if hasPrefix "http://" . }}
    - --insecure-http
    {{- end }}
    {{- end }}
    {{- with $region }}
    - --region={{ . }}
    {{- end }}
  env:
    - name: HOME
      value: /tmp
    {{- with $secret }}
    - name: AWS_ACCESS_KEY_ID
      valueFrom:
        secretKeyRef:
          name: {{ . | quote }}
          key: access-key-id
    - name: AWS_SECRET_ACCESS_KEY
      valueFrom:
        secretKeyRef:
          name: {{ . | quote }}
          key: secret-access-key
    {{- end }}
  resources:
    requests: {cpu: 250m, memory: 512Mi}
    limits: {memory: 1Gi}
  securityContext:
    {{- include "terroir.containerSecurityContext" .root | nindent 4 }}
  volumeMounts:
    - name: model
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- end }}
{{- end -}}
