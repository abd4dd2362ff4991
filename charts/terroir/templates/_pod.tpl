{{/* What every pod of the chart has in common: the restricted level, no token, no environment of other Services. */}}

{{- define "terroir.podSecurityContext" -}}
runAsNonRoot: true
{{- if .Values.podSecurity.assignUser }}
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- if .Values.podSecurity.seccompRuntimeDefault }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- end -}}

{{- define "terroir.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- if .Values.podSecurity.seccompRuntimeDefault }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- end -}}

{{/* Takes (dict "root" . "component" NAME "values" VALUES "account" NAME "gpu" bool). */}}
{{- define "terroir.podCommon" -}}
serviceAccountName: {{ .account | quote }}
automountServiceAccountToken: false
# Kubernetes would set TERROIR_REGISTRY_PORT and its like from Services, and a service refuses settings that it does not know.
enableServiceLinks: false
securityContext:
  {{- include "terroir.podSecurityContext" .root | nindent 2 }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (include "terroir.tolerations" .values) }}
tolerations:
  {{- . | nindent 2 }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with (include "terroir.priorityClass" .) }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "terroir.priorityClass" -}}
{{- if .values.priorityClassName -}}
{{ .values.priorityClassName }}
{{- else if .root.Values.priorityClasses.create -}}
{{ include "terroir.fullname" .root }}-{{ ternary "workers" "services" (eq .component "ray-worker") }}
{{- end -}}
{{- end -}}

{{/* Those of the values, and the taint that keeps others from GPU nodes. */}}
{{- define "terroir.tolerations" -}}
{{- with .tolerations }}
{{- toYaml . }}
{{- end }}
{{- with .gpu }}
{{- if .count }}
- key: {{ .resourceName | quote }}
  operator: Exists
  effect: NoSchedule
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.resources" -}}
requests:
  {{- toYaml .resources.requests | nindent 2 }}
  {{- include "terroir.gpuAmount" . }}
limits:
  {{- toYaml .resources.limits | nindent 2 }}
  {{- include "terroir.gpuAmount" . }}
{{- end -}}

{{- define "terroir.gpuAmount" -}}
{{- with .gpu }}
{{- if .count }}
  {{ .resourceName }}: {{ .count }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.topologySpread" -}}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key | quote }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable | quote }}
    labelSelector:
      matchLabels:
        {{- include "terroir.selectorLabels" $ | nindent 8 }}
    # Else pods of the version before count, and a rollout ends uneven.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* Mounts and volumes of credentials. Takes (dict "root" . "component" NAME). */}}
{{- define "terroir.credentialMounts" -}}
{{- if ne .root.Values.tls.source "none" }}
- name: tls
  mountPath: /etc/terroir/tls
  readOnly: true
{{- if .access }}
- name: access
  mountPath: /etc/terroir/access
  readOnly: true
{{- if .root.Values.access.jwksConfigMap }}
- name: jwks
  mountPath: /etc/terroir/jwks
  readOnly: true
{{- end }}
{{- end }}
{{- if .root.Values.serviceAccountTokens.enabled }}
- name: token
  mountPath: /var/run/secrets/terroir
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.credentialVolumes" -}}
{{- if ne .root.Values.tls.source "none" }}
# Whole folders, not single files, which Kubernetes would not replace when the secret changes.
- name: tls
  secret:
    secretName: {{ include "terroir.tlsSecret" . | quote }}
    defaultMode: 0440
{{- if .access }}
- name: access
  configMap:
    name: {{ include "terroir.fullname" .root }}-access
{{- with .root.Values.access.jwksConfigMap }}
- name: jwks
  configMap:
    name: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .root.Values.serviceAccountTokens.enabled }}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .root.Values.serviceAccountTokens.audience | quote }}
          expirationSeconds: {{ int .root.Values.serviceAccountTokens.expirationSeconds }}
{{- end }}
{{- end }}
{{- end -}}
