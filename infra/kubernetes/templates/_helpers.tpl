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
    - { name: UNDERSTUDY_BROKER__URL_FILE, value: /run/secrets/broker.url }
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
    {{- if not .keyless }}
    - { name: secrets, mountPath: /run/secrets/understudy, readOnly: true }
    {{- end }}
    # Of the addresses that the pod's volume has, its own.
    {{- if .root.Values.broker.shared }}
    - { name: broker, mountPath: /run/secrets/broker.url, subPath: broker.url, readOnly: true }
    {{- else if .server }}
    - { name: broker, mountPath: /run/secrets/broker.url, subPathExpr: "{{ .service }}.{{ .root.Values.domain }}.$(UNDERSTUDY_SERVER__ID).url", readOnly: true }
    {{- else }}
    - { name: broker, mountPath: /run/secrets/broker.url, subPath: {{ .service }}.url, readOnly: true }
    {{- end }}
    - { name: tmp, mountPath: /tmp }
    {{- if .data }}
    - { name: data, mountPath: /var/lib/understudy }
    {{- end }}
{{- end -}}

{{/*
A process sees the secrets that it needs, and no others. Call with (dict "root" . "keys" (list …) "services" (list …)):
keys of the Secret, and the services of the host that the pod has; "servers" true for a server's pod in their place.
No key, no volume: a list without items would be all of them.
*/}}
{{- define "understudy.volumes" -}}
- name: config
  configMap: { name: {{ include "understudy.name" .root }} }
- name: broker
  secret:
    {{- if .root.Values.broker.shared }}
    secretName: {{ .root.Values.secretName }}
    defaultMode: 0440
    items:
      - { key: broker.url, path: broker.url }
    {{- else if .servers }}
    # Whole, so that another server changes nothing of the others' pods; each container sees its own.
    secretName: {{ .root.Values.broker.serversSecretName }}
    defaultMode: 0440
    {{- else }}
    secretName: {{ .root.Values.broker.secretName }}
    defaultMode: 0440
    items:
      {{- range .services }}
      - { key: {{ . }}.url, path: {{ . }}.url }
      {{- end }}
    {{- end }}
{{- if .keys }}
- name: secrets
  secret:
    secretName: {{ .root.Values.secretName }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - { key: {{ . }}, path: {{ . }} }
      {{- end }}
{{- end }}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
{{- end -}}
