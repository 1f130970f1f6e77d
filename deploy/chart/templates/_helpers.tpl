{{- /* Names, labels, and what several templates must agree on. */ -}}

{{- define "sekisho.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sekisho.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "sekisho.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: name the account that is there, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sekisho.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sekisho.labels" -}}
{{ include "sekisho.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sekisho.image" -}}
{{- $image := .Values.image -}}
{{- $repository := required "image.repository: name the registry and repository that you pushed the image to, for instance 111122223333.dkr.ecr.eu-central-1.amazonaws.com/sekisho" $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* Whether the probes are to outlive the agent, as the configuration says: "true" or nothing. */ -}}
{{- define "sekisho.pins" -}}
{{- if ne (dig "kernel" "pin" "off" .Values.config) "off" -}}true{{- end -}}
{{- end -}}

{{- /* The secret with the certificate of /metrics, if there is one. */ -}}
{{- define "sekisho.tlsSecret" -}}
{{- if .Values.metrics.secure.enabled -}}{{ .Values.metrics.secure.tlsSecret }}{{- end -}}
{{- end -}}

{{- /* The agent's configuration file: what was given, and what depends on where the chart mounts things. */ -}}
{{- define "sekisho.config" -}}
{{- $metrics := dict "listen" (printf "127.0.0.1:%v" .Values.metrics.port) -}}
{{- if include "sekisho.tlsSecret" . -}}
{{- $_ := set $metrics "tls_cert_file" "/etc/sekisho-tls/tls.crt" -}}
{{- $_ := set $metrics "tls_key_file" "/etc/sekisho-tls/tls.key" -}}
{{- end -}}
{{- $own := dict
  "metrics" $metrics
  "roots" (dict "proc" "/host/proc" "run" "/host/run")
-}}
{{- toYaml (mustMergeOverwrite (deepCopy .Values.config) $own) -}}
{{- end -}}

{{- /* Annotation for the Datadog agent: its configuration file, asked where it can reach the agent. */ -}}
{{- define "sekisho.datadog" -}}
{{- $text := .Files.Get "files/datadog/conf.yaml" -}}
{{- if not $text -}}
{{- fail "datadog.enabled: this chart was packed without Datadog's configuration (files/datadog is empty)" -}}
{{- end -}}
{{- $conf := fromYaml $text -}}
{{- $instance := deepCopy (first $conf.instances) -}}
{{- if .Values.metrics.secure.enabled -}}
{{- $_ := set $instance "openmetrics_endpoint" (printf "https://%%%%host%%%%:%v/metrics" .Values.metrics.port) -}}
{{- /* The certificate bears a name that the check does not ask for. */ -}}
{{- $_ := set $instance "tls_verify" false -}}
{{- $reader := dict "type" "file" "path" "/var/run/secrets/kubernetes.io/serviceaccount/token" -}}
{{- $writer := dict "type" "header" "name" "Authorization" "value" "Bearer <TOKEN>" -}}
{{- $_ := set $instance "auth_token" (dict "reader" $reader "writer" $writer) -}}
{{- else -}}
{{- $_ := set $instance "openmetrics_endpoint" (printf "http://127.0.0.1:%v/metrics" .Values.metrics.port) -}}
{{- end -}}
{{- $check := dict "init_config" ($conf.init_config | default dict) "instances" (list $instance) -}}
{{- toYaml (dict "ad.datadoghq.com/sekisho.checks" (toJson (dict "openmetrics" $check))) -}}
{{- end -}}
