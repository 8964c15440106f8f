{{- /*
A role's Deployment, ServiceAccount and PodDisruptionBudget.
Takes a dict: root, role, args, strategy and annotations of the pods (optional), ports (name: number), probe (the port that answers /healthz and /readyz), volumes (name: {mountPath, source}).
*/ -}}
{{- define "ostler.deployment" -}}
{{- $values := index .root.Values .role -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "ostler.metadata" . | nindent 2 }}
  {{- with $values.serviceAccountAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "ostler.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "ostler.selector" . | nindent 6 }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "ostler.metadata" . | nindent 2 }}
spec:
  replicas: {{ $values.replicas }}
  {{- with .strategy }}
  strategy: {type: {{ . }}}
  {{- end }}
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      {{- include "ostler.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "ostler.labels" . | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .role }}
        {{- with .annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "ostler.fullname" .root }}-{{ .role }}
      automountServiceAccountToken: true
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "ostler.selector" . | nindent 14 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .role }}
          image: {{ include "ostler.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args:
            {{- range concat (list .role "--json") .args $values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            # The holder of a lease is named after it.
            - name: POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
          ports:
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}}
            {{- end }}
          startupProbe:
            httpGet: {path: /healthz, port: {{ .probe }}}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /healthz, port: {{ .probe }}}
            periodSeconds: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet: {path: /readyz, port: {{ .probe }}}
            periodSeconds: 5
            timeoutSeconds: 5
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: state, mountPath: /var/lib/ostler}
            - {name: tmp, mountPath: /tmp}
            {{- range $name, $volume := .volumes }}
            - {name: {{ $name }}, mountPath: {{ $volume.mountPath }}, readOnly: true}
            {{- end }}
      volumes:
        # Copies and queues; whatever must last is in Git.
        - {name: state, emptyDir: {}}
        - {name: tmp, emptyDir: {}}
        {{- range $name, $volume := .volumes }}
        - name: {{ $name }}
          {{- toYaml $volume.source | nindent 10 }}
        {{- end }}
{{- end -}}

{{- /* The arguments of every role but the proxy, which is asked from all namespaces; --state and the lease are for those that lead. */ -}}
{{- define "ostler.scope" -}}
{{- with .Values.watchNamespace }}--namespace {{ . }}{{ end -}}
{{- end -}}
