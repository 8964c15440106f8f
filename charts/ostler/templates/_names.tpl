{{- define "ostler.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels of what belongs to a role. Takes a dict: root, role. */ -}}
{{- define "ostler.labels" -}}
{{ include "ostler.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "ostler.selector" -}}
app.kubernetes.io/name: ostler
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "ostler.metadata" -}}
name: {{ include "ostler.fullname" .root }}-{{ .role }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "ostler.labels" . | nindent 2 }}
{{- end -}}

{{- define "ostler.image" -}}
{{- $repository := required "image.repository: name the image of ostler; Containerfile in its repository builds one" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* The name in the certificate of a role. Takes a dict: root, role. */ -}}
{{- define "ostler.serverName" -}}
{{ include "ostler.fullname" .root }}-{{ .role }}.{{ .root.Release.Namespace }}.svc
{{- end -}}

{{- define "ostler.tlsSecret" -}}
{{- default (printf "%s-%s-tls" (include "ostler.fullname" .root) .role) (index .root.Values .role).tls.existingSecret -}}
{{- end -}}
