{{/*
The Deployment of a service. Takes a dict: root, component, image (key of .Values.images), values, and as YAML text
env, mounts, volumes, initContainers; rollout (surge and missing pods), autoscaled (someone else sets replicas).
*/}}
{{- define "terroir.deployment" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $which := dict "root" $root "component" .component "access" true -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "terroir.componentName" $which | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "terroir.labels" $which | nindent 4 }}
spec:
  {{- if not .autoscaled }}
  replicas: {{ int $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: {{ add (int $values.startupSeconds) 300 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: {{ .rollout.maxSurge | toJson }}
      maxUnavailable: {{ .rollout.maxUnavailable | toJson }}
  selector:
    matchLabels:
      {{- include "terroir.selectorLabels" $which | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "terroir.labels" $which | nindent 8 }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "terroir.podCommon" (dict "root" $root "component" .component "values" $values "account" (include "terroir.componentName" $which)) | nindent 6 }}
      # SIGTERM begins the drain: the service says NOT_SERVING for the delay, then running calls have the timeout. The
      # rest is for the answers on their way and for closing what is open.
      terminationGracePeriodSeconds: {{ include "terroir.grace" $values }}
      {{- with (include "terroir.topologySpread" $which | trim) }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with .initContainers }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component | quote }}
          image: {{ include "terroir.image" . | quote }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy | quote }}
          command: [python, -m, terroir.{{ .component }}.main]
          env:
            {{- include "terroir.serviceEnv" (dict "root" $root "component" .component "values" $values) | trim | nindent 12 }}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
          ports:
            - name: grpc
              containerPort: {{ include "terroir.port" .component }}
            - name: metrics
              containerPort: 9090
          # Ready is: the model is loaded, the index read. Until then nothing else is asked.
          startupProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: {{ div (add (int $values.startupSeconds) 4) 5 }}
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          livenessProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources:
            {{- include "terroir.resources" $values | nindent 12 }}
          securityContext:
            {{- include "terroir.containerSecurityContext" $root | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: /var/lib/terroir
            - name: tmp
              mountPath: /tmp
            {{- with (include "terroir.credentialMounts" $which | trim) }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - name: data
          emptyDir:
            sizeLimit: {{ $values.cacheSizeLimit | quote }}
        - name: tmp
          emptyDir:
            sizeLimit: 2Gi
        {{- with (include "terroir.credentialVolumes" $which | trim) }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end -}}

{{- define "terroir.grace" -}}
{{ add (int .drain.delaySeconds) (int .drain.timeoutSeconds) 15 }}
{{- end -}}

{{/* Takes root, component, values. */}}
{{- define "terroir.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "terroir.componentName" . | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "terroir.labels" . | nindent 4 }}
  {{- with .values.serviceAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: ClusterIP
  {{- if .headless }}
  # Its name has every pod's address, so that clients spread their requests themselves.
  clusterIP: None
  {{- end }}
  selector:
    {{- include "terroir.selectorLabels" . | nindent 4 }}
  ports:
    - name: grpc
      port: {{ include "terroir.port" .component }}
      targetPort: grpc
    - name: metrics
      port: 9090
      targetPort: metrics
{{- end -}}

{{- define "terroir.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "terroir.componentName" . | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "terroir.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{/* Of one pod there is none: a budget that allows its eviction says nothing, one that forbids it blocks every drain. */}}
{{- define "terroir.podDisruptionBudget" -}}
{{- if and .root.Values.podDisruptionBudgets.enabled (gt (int .pods) 1) }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "terroir.componentName" . | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "terroir.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudgets.maxUnavailable | toJson }}
  # A pod that is broken anyway must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "terroir.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end -}}
