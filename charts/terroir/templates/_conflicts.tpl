{{- define "terroir.conflicts" -}}
{{- $found := list -}}
{{- range $part := list "store" "tls" "access" "model" "inference" "training" "tracing" -}}
{{- range (include (printf "terroir.conflicts.%s" $part) $ | trim | splitList "\n") -}}
{{- with (trim .) -}}{{- $found = append $found (printf "- %s" .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{ $found | toJson }}
{{- end -}}

{{- define "terroir.conflicts.store" -}}
{{- $external := .Values.store.external -}}
{{- if .Values.store.enabled }}
{{- if or $external.endpoint $external.region $external.existingSecret $external.machineRole }}
store.enabled is true and store.external is set: say store.enabled=false to use the external service, or leave store.external empty
{{- end }}
{{- else }}
{{- if and $external.existingSecret $external.machineRole }}
store.external.existingSecret and store.external.machineRole are both set: choose one
{{- else if not (or $external.existingSecret $external.machineRole) }}
store.enabled is false and the external store has no credentials: name a secret with access-key-id and secret-access-key in store.external.existingSecret, or say store.external.machineRole=true
{{- end }}
{{- if and (hasPrefix "http://" $external.endpoint) (not .Values.insecure) }}
store.external.endpoint {{ $external.endpoint }} would carry keys and objects unencrypted: use https, or say insecure=true on a network that you trust
{{- end }}
{{- if .Values.store.existingSecret }}
store.existingSecret is for the server of this release and store.enabled is false: name the secret in store.external.existingSecret
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.conflicts.tls" -}}
{{- $tls := .Values.tls -}}
{{- if and (eq $tls.source "none") (not .Values.insecure) }}
tls.source is none: everybody who reaches a service would be an operator, unencrypted. Choose generated, certManager or existingSecrets, or say insecure=true on a network that you trust
{{- end }}
{{- if and (eq $tls.source "certManager") (not $tls.certManager.issuerRef.name) }}
tls.source is certManager and tls.certManager.issuerRef.name is empty: name the Issuer that signs
{{- end }}
{{- if and (ne $tls.source "certManager") $tls.certManager.issuerRef.name }}
tls.certManager.issuerRef.name is set and tls.source is {{ $tls.source }}: say tls.source=certManager, or leave it empty
{{- end }}
{{- if and (eq $tls.source "certManager") (le (trimSuffix "h" $tls.certManager.duration | int) (trimSuffix "h" $tls.certManager.renewBefore | int)) }}
tls.certManager.renewBefore {{ $tls.certManager.renewBefore }} is not shorter than tls.certManager.duration {{ $tls.certManager.duration }}
{{- end }}
{{- if ge (int $tls.generated.renewAfterDays) (int $tls.generated.days) }}
tls.generated.renewAfterDays {{ $tls.generated.renewAfterDays }} is not less than tls.generated.days {{ $tls.generated.days }}
{{- end }}
{{- range $component, $secret := $tls.existingSecrets }}
{{- if and (eq $tls.source "existingSecrets") (not $secret) }}
tls.source is existingSecrets and tls.existingSecrets.{{ $component }} is empty: name a secret with tls.crt, tls.key and ca.crt
{{- else if and (ne $tls.source "existingSecrets") $secret }}
tls.existingSecrets.{{ $component }} is set and tls.source is {{ $tls.source }}: say tls.source=existingSecrets, or leave it empty
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.conflicts.access" -}}
{{- $tokens := .Values.serviceAccountTokens -}}
{{- if eq .Values.tls.source "none" }}
{{- if or .Values.access.issuers .Values.access.grants }}
access.issuers or access.grants are set and tls.source is none, so nobody would be asked who they are: choose another tls.source, or leave access empty
{{- end }}
{{- if $tokens.enabled }}
serviceAccountTokens.enabled is true and tls.source is none: tokens are only ever sent over TLS; choose another tls.source
{{- end }}
{{- else if not (or .Values.tls.requireClientCertificate .Values.access.issuers) }}
tls.requireClientCertificate is false and access.issuers is empty: callers could show neither a certificate nor a token; name an issuer, or require certificates
{{- end }}
{{- if $tokens.enabled }}
{{- if not (and $tokens.issuer $tokens.jwks) }}
serviceAccountTokens.enabled is true and serviceAccountTokens.issuer or .jwks is empty: say who issues the cluster's tokens and where its keys are
{{- end }}
{{- if and (hasPrefix "/" $tokens.jwks) (not .Values.access.jwksConfigMap) }}
serviceAccountTokens.jwks {{ $tokens.jwks }} is a file and access.jwksConfigMap is empty: name the ConfigMap that holds it
{{- end }}
{{- end }}
{{- range .Values.access.issuers }}
{{- if and (hasPrefix "/" .jwks) (not $.Values.access.jwksConfigMap) }}
access.issuers: jwks {{ .jwks }} of {{ .issuer }} is a file and access.jwksConfigMap is empty: name the ConfigMap that holds it
{{- end }}
{{- if and $tokens.enabled (eq .issuer $tokens.issuer) }}
access.issuers and serviceAccountTokens.issuer both name {{ .issuer }}: leave it out of access.issuers
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.conflicts.model" -}}
{{- $model := .Values.inference.model -}}
{{- $stated := dict "pvc" (list "pvc.claimName" $model.pvc.claimName) "image" (list "image.reference" $model.image.reference) "bucket" (list "bucket.url" $model.bucket.url) -}}
{{- range $source, $field := $stated }}
{{- if and (eq $model.source $source) (not (last $field)) }}
inference.model.source is {{ $source }} and inference.model.{{ first $field }} is empty
{{- else if and (ne $model.source $source) (last $field) }}
inference.model.{{ first $field }} is set and inference.model.source is {{ $model.source }}: say inference.model.source={{ $source }}, or leave it empty
{{- end }}
{{- end }}
{{- if and (eq $model.source "embedded") (or (ne $model.id "terroir-tiny") $model.path) }}
inference.model.source is embedded, which is terroir-tiny: leave inference.model.id and .path as they are, or say where the weights of {{ $model.id }} are
{{- else if and (ne $model.source "embedded") (eq $model.id "terroir-tiny") }}
inference.model.id is terroir-tiny, the embedded model, and inference.model.source is {{ $model.source }}: give these weights an identifier of their own
{{- end }}
{{- if and (eq $model.source "image") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) }}
inference.model.source is image and Kubernetes {{ .Capabilities.KubeVersion.Version }} has no image volumes (1.33 or later): choose pvc or bucket
{{- end }}
{{- if eq $model.source "bucket" }}
{{- if and $model.bucket.endpoint (not $model.bucket.existingSecret) }}
inference.model.bucket.endpoint is set and inference.model.bucket.existingSecret is empty: the store's keys are not shown to another service; name a secret
{{- end }}
{{- if and (hasPrefix "http://" $model.bucket.endpoint) (not .Values.insecure) }}
inference.model.bucket.endpoint {{ $model.bucket.endpoint }} would carry keys unencrypted: use https, or say insecure=true on a network that you trust
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.conflicts.inference" -}}
{{- $scaling := .Values.inference.autoscaling -}}
{{- if and $scaling.hpa.enabled $scaling.keda.enabled }}
inference.autoscaling.hpa and inference.autoscaling.keda are both enabled: choose one, they would undo each other's work
{{- end }}
{{- if and $scaling.hpa.enabled (not $scaling.hpa.cpuUtilizationPercent) (not $scaling.hpa.queueDepth) }}
inference.autoscaling.hpa is enabled with neither cpuUtilizationPercent nor queueDepth: say what to scale by
{{- end }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
inference.autoscaling.minReplicas {{ $scaling.minReplicas }} exceeds maxReplicas {{ $scaling.maxReplicas }}
{{- end }}
{{- if $scaling.keda.enabled }}
{{- if le (int $scaling.keda.cooldownSeconds) (int .Values.inference.startupSeconds) }}
inference.autoscaling.keda.cooldownSeconds {{ $scaling.keda.cooldownSeconds }} is not longer than inference.startupSeconds {{ .Values.inference.startupSeconds }}: pods would be removed that have just loaded their model
{{- end }}
{{- if gt (int $scaling.keda.fallback.replicas) (int $scaling.maxReplicas) }}
inference.autoscaling.keda.fallback.replicas {{ $scaling.keda.fallback.replicas }} exceeds inference.autoscaling.maxReplicas {{ $scaling.maxReplicas }}
{{- end }}
{{- end }}
{{- $rollout := .Values.inference.rollout -}}
{{- if and (has (toString $rollout.maxSurge) (list "0" "0%")) (has (toString $rollout.maxUnavailable) (list "0" "0%")) }}
inference.rollout.maxSurge and maxUnavailable are both 0: nothing could be rolled out
{{- end }}
{{- if and (ne .Values.inference.signaturePolicy "off") (not .Values.inference.trustedKeys) }}
inference.signaturePolicy is {{ .Values.inference.signaturePolicy }} and inference.trustedKeys is empty: no signature could be trusted
{{- end }}
{{- end -}}

{{- define "terroir.conflicts.training" -}}
{{- $ray := .Values.ray -}}
{{- $external := .Values.training.externalRay -}}
{{- if and $ray.enabled (or $external.dashboardUrl $external.existingSecret) }}
ray.enabled is true and training.externalRay is set: say ray.enabled=false to use the external cluster, or leave training.externalRay empty
{{- end }}
{{- if and $external.existingSecret (not $external.dashboardUrl) (not $ray.enabled) }}
training.externalRay.existingSecret is set and training.externalRay.dashboardUrl is empty
{{- end }}
{{- $local := not (or $ray.enabled $external.dashboardUrl) -}}
{{- if and $local (gt (int .Values.training.replicas) 1) }}
training.replicas is {{ .Values.training.replicas }} and jobs run in the training pod: each pod would take the others' jobs for lost. Say training.replicas=1, enable ray, or name training.externalRay.dashboardUrl
{{- end }}
{{- $names := list -}}
{{- $gpus := false -}}
{{- range $ray.workerGroups }}
{{- if has .name $names }}
ray.workerGroups has two groups with the name {{ .name }}
{{- end }}
{{- $names = append $names .name -}}
{{- if gt (int (default 0 .minReplicas)) (int .maxReplicas) }}
ray.workerGroups: minReplicas {{ .minReplicas }} of {{ .name }} exceeds maxReplicas {{ .maxReplicas }}
{{- end }}
{{- if .gpu }}{{ if .gpu.count }}{{ $gpus = true }}{{ end }}{{ end }}
{{- end }}
{{- if gt (float64 .Values.training.gpusPerJob) 0.0 }}
{{- if and $ray.enabled (not $gpus) }}
training.gpusPerJob is {{ .Values.training.gpusPerJob }} and no group of ray.workerGroups has a GPU: jobs would wait for ever
{{- else if $local }}
training.gpusPerJob is {{ .Values.training.gpusPerJob }} and jobs run in the training pod, which has no GPU: enable ray, or name training.externalRay.dashboardUrl
{{- end }}
{{- end }}
{{- end -}}

{{- define "terroir.conflicts.tracing" -}}
{{- if and .Values.tracing.existingSecret (not .Values.tracing.otlpEndpoint) }}
tracing.existingSecret is set and tracing.otlpEndpoint is empty: name the collector that asks for these headers
{{- end }}
{{- end -}}
