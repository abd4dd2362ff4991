{{/* What head and workers have in common. Takes root, values, and model: whether it reads the weights. */}}
{{- define "terroir.rayContainer" -}}
{{- $root := .root -}}
image: {{ include "terroir.image" (dict "root" $root "image" "trainer") | quote }}
imagePullPolicy: {{ $root.Values.images.pullPolicy | quote }}
env:
  {{- include "terroir.callerEnv" (dict "root" $root "service" "training" "values" $root.Values.training) | trim | nindent 2 }}
  {{- if ne $root.Values.tls.source "none" }}
  # For programs on the node that have no settings.
  - name: TERROIR_TLS_DIR
    value: /etc/terroir/tls
  {{- if $root.Values.serviceAccountTokens.enabled }}
  - name: TERROIR_TOKEN_PATH
    value: /var/run/secrets/terroir/token
  {{- end }}
  {{- end }}
  - name: RAY_USAGE_STATS_ENABLED
    value: "0"
# As KubeRay would set them for this version of Ray, so that an older KubeRay does not ask for wget in the image.
readinessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  initialDelaySeconds: 10
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 10
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  initialDelaySeconds: 30
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
resources:
  {{- include "terroir.resources" .values | nindent 2 }}
securityContext:
  {{- include "terroir.containerSecurityContext" $root | nindent 2 }}
volumeMounts:
  - name: data
    mountPath: /var/lib/terroir
  - name: tmp
    mountPath: /tmp
  - name: shared-memory
    mountPath: /dev/shm
  {{- with (include "terroir.credentialMounts" (dict "root" $root) | trim) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .model }}
  {{- with (include "terroir.modelMounts" $root | trim) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "terroir.rayVolumes" -}}
- name: data
  emptyDir:
    sizeLimit: {{ .root.Values.training.cacheSizeLimit | quote }}
- name: tmp
  emptyDir:
    sizeLimit: 10Gi
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .sharedMemory | quote }}
{{- with (include "terroir.credentialVolumes" (dict "root" .root "component" "training") | trim) }}
{{ . }}
{{- end }}
{{- if .model }}
{{- with (include "terroir.modelVolumes" .root | trim) }}
{{ . }}
{{- end }}
{{- end }}
{{- end -}}
