{{/* Environment of services and Ray nodes. */}}

{{- define "terroir.variable" -}}
- name: TERROIR_{{ upper .service }}_{{ upper .setting }}
  value: {{ kindIs "string" .value | ternary .value (.value | toJson) | quote }}
{{- end -}}

{{/* What every service has. Takes (dict "root" . "component" NAME "values" VALUES). */}}
{{- define "terroir.serviceEnv" -}}
{{- $root := .root -}}
{{- $settings := dict
  "host" $root.Values.listenAddress
  "port" (include "terroir.port" .component)
  "metrics_port" "9090"
  "log_level" $root.Values.logLevel
  "drain_delay_seconds" .values.drain.delaySeconds
  "drain_timeout_seconds" .values.drain.timeoutSeconds
  "rate_limit_calls_per_second" $root.Values.rateLimit.callsPerSecond
  "rate_limit_burst_calls" $root.Values.rateLimit.burstCalls
-}}
{{- if eq $root.Values.tls.source "none" -}}
{{- $_ := set $settings "insecure_listen" "true" -}}
{{- else -}}
{{- $_ := set $settings "access_path" "/etc/terroir/access/access.yaml" -}}
{{- $_ := set $settings "tls_require_client_certificate" $root.Values.tls.requireClientCertificate -}}
{{- end -}}
{{- range $setting, $value := $settings }}
{{ include "terroir.variable" (dict "service" $.component "setting" $setting "value" $value) }}
{{- end }}
{{- include "terroir.callerEnv" (dict "root" $root "service" .component "values" .values) }}
{{- end -}}

{{/* What a service has and Ray nodes have as well: credentials, store, tracing, and the settings named in the values. */}}
{{- define "terroir.callerEnv" -}}
{{- $root := .root -}}
{{- $settings := dict "data_dir" "/var/lib/terroir" "trace_sample_ratio" $root.Values.tracing.sampleRatio -}}
{{- with $root.Values.tracing.otlpEndpoint -}}
{{- $_ := set $settings "otlp_endpoint" . -}}
{{- end -}}
{{- if ne $root.Values.tls.source "none" -}}
{{- $_ := set $settings "tls_dir" "/etc/terroir/tls" -}}
{{- if $root.Values.serviceAccountTokens.enabled -}}
{{- $_ := set $settings "token_path" "/var/run/secrets/terroir/token" -}}
{{- end -}}
{{- end -}}
{{- range $setting, $value := merge (deepCopy .values.settings) $settings }}
{{ include "terroir.variable" (dict "service" $.service "setting" $setting "value" $value) }}
{{- end }}
{{- with $root.Values.tracing.existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: "headers"
{{- end }}
{{- include "terroir.storeEnv" . }}
# The root file system is read-only, and a user that the platform assigns has no name.
- name: HOME
  value: /tmp
- name: USER
  value: terroir
{{- end -}}

{{/* Where objects are, and the keys. */}}
{{- define "terroir.storeEnv" -}}
{{- $root := .root -}}
{{- $store := $root.Values.store -}}
{{- $settings := dict
  "store" (printf "s3://%s%s" $store.bucket (empty $store.prefix | ternary "" (printf "/%s" $store.prefix)))
  "store_create_bucket" $store.createBucket
-}}
{{- with (include "terroir.storeEndpoint" $root) -}}
{{- $_ := set $settings "store_endpoint" . -}}
{{- $_ := set $settings "store_insecure_http" (hasPrefix "http://" .) -}}
{{- end -}}
{{- if and (not $store.enabled) $store.external.region -}}
{{- $_ := set $settings "store_region" $store.external.region -}}
{{- end -}}
{{- range $setting, $value := $settings }}
{{ include "terroir.variable" (dict "service" $.service "setting" $setting "value" $value) }}
{{- end }}
{{- with (include "terroir.storeSecret" $root) }}
{{- range $setting, $key := dict "STORE_ACCESS_KEY_ID" "access-key-id" "STORE_SECRET_ACCESS_KEY" "secret-access-key" }}
- name: TERROIR_{{ upper $.service }}_{{ $setting }}
  valueFrom:
    secretKeyRef:
      name: {{ include "terroir.storeSecret" $root | quote }}
      key: {{ $key | quote }}
{{- end }}
{{- end }}
{{- end -}}
