{{- define "understudy.name" -}}
{{- printf "%s-understudy" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "understudy.labels" -}}
app.kubernetes.io/name: understudy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What selects the pods of one part. Call with (dict "root" . "part" "host"). */}}
{{- define "understudy.selector" -}}
app.kubernetes.io/name: understudy
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "understudy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "understudy.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/* One process. Call with (dict "root" . "service" "monitor" "health" 7600 "resources" …). */}}
{{- define "understudy.container" -}}
- name: {{ .service }}
  image: {{ include "understudy.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: [{{ .service }}, --config, /etc/understudy/understudy.toml, --listen, "0.0.0.0:{{ .health }}"]
  env:
    - { name: UNDERSTUDY_RUNTIME__LOG, value: json }
    - { name: UNDERSTUDY_BROKER__URL_FILE, value: /run/secrets/understudy/broker.url }
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - { name: {{ .portName | default "health" }}, containerPort: {{ .health }} }
    {{- with .ports }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # Ready by what it answers; alive as long as it answers at all. A broker that is away kills nobody.
  readinessProbe:
    httpGet: { path: /readyz, port: {{ .health }} }
    periodSeconds: 5
  livenessProbe:
    httpGet: { path: /healthz, port: {{ .health }} }
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources: {{- toYaml .resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
  volumeMounts:
    - { name: config, mountPath: /etc/understudy, readOnly: true }
    - { name: secrets, mountPath: /run/secrets/understudy, readOnly: true }
    - { name: tmp, mountPath: /tmp }
    {{- if .data }}
    - { name: data, mountPath: /var/lib/understudy }
    {{- end }}
{{- end -}}

{{/* Call with (dict "root" . "keys" (list …)): a process sees the secrets that it needs, and no others. */}}
{{- define "understudy.volumes" -}}
- name: config
  configMap: { name: {{ include "understudy.name" .root }} }
- name: secrets
  secret:
    secretName: {{ .root.Values.secretName }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - { key: {{ . }}, path: {{ . }} }
      {{- end }}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
{{- end -}}
