{{- define "pbxhook.name" -}}
{{- if contains "pbxhook" .Release.Name }}{{ .Release.Name | trunc 54 | trimSuffix "-" }}{{ else }}{{ printf "%s-pbxhook" .Release.Name | trunc 54 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "pbxhook.selector" -}}
app.kubernetes.io/name: pbxhook-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pbxhook.labels" -}}
{{ include "pbxhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pbxhook.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "pbxhook.name" .) }}
{{- end }}

{{- define "pbxhook.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}{{ end }}
{{- end }}
{{- end }}

{{- define "pbxhook.subject" -}}
- kind: ServiceAccount
  name: {{ include "pbxhook.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
