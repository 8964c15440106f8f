{{- /*
What each role may do, and why. A rule without a reason in the line before it fails a test, and so does one that nobody needs.

  ostler.rules.ROLE     in the namespaces that are looked after
  ostler.own.ROLE       in the namespace of this release
  ostler.cluster.ROLE   in the whole cluster, whatever is looked after
*/ -}}

{{- define "ostler.rules.controller" -}}
# The loop of every controller begins with watching; the syncer compares what is there with what a commit says.
- apiGroups: [ostler.dev]
  resources: [configrepositories, sessions, harnessruns, agents, egresspolicies]
  verbs: [list, watch]
# The recorder writes to the same status: it is read before it is written.
- apiGroups: [ostler.dev]
  resources: [configrepositories]
  verbs: [get]
# What a commit holds is applied, and what it holds no more is pruned. A repository's own object never comes out of one.
- apiGroups: [ostler.dev]
  resources: [sessions, harnessruns, agents, egresspolicies]
  verbs: [create, patch, delete]
# People and programs read there what became of it.
- apiGroups: [ostler.dev]
  resources: [configrepositories/status, sessions/status, harnessruns/status]
  verbs: [patch]
# Prompts and contexts are ConfigMaps: applied from commits, pruned, and read when a run starts.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch, create, patch, delete]
# A Secret that a manifest names and whose annotations allow that use is read when it is needed.
{{ include "ostler.secretRule" . }}
# `kubectl describe` shows what happened to a run.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- with .Values.controller.applyAs }}
# A repository's objects are written in the name of the service account that it names, one of its own namespace: whose rights count.
- apiGroups: [""]
  resources: [serviceaccounts]
  resourceNames: {{ toJson . }}
  verbs: [impersonate]
{{- end }}
{{- end -}}

{{- define "ostler.rules.pods" -}}
# A run is a pod of ours: made, followed, released of our finalizer, and deleted.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The sidecar is given the run's secrets and told to stop over a stream; a policy lets nothing but that command pass.
- apiGroups: [""]
  resources: [pods/exec]
  verbs: [get, create]
# Why a node does not start a pod may be said in an event only: a volume that cannot be mounted.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# A session's workspace may outlive its runs.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, delete]
# No agent's pod is made before the one policy that confines it.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  resourceNames: [ostler-agents]
  verbs: [create, patch]
{{- end -}}

{{- define "ostler.own.controller" -}}
# One controller at a time: the lease says which.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [ostler-controller]
  verbs: [get, list, watch, update]
# A lease that does not exist yet has no name that a right could be bound to.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
{{- end -}}

{{- define "ostler.cluster.controller" -}}
# A controller whose CRDs are missing, older or newer must say so instead of losing fields.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: {{ include "ostler.crds" . }}
  verbs: [get]
# A policy counts when a watch has shown it, and one that somebody changes is put back.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  resourceNames: [ostler-agents]
  verbs: [list, watch]
{{- end -}}

{{- define "ostler.rules.recorder" -}}
# It finds the claims to make, and the repository and run that a result belongs to.
- apiGroups: [ostler.dev]
  resources: [configrepositories, sessions, harnessruns, agents, egresspolicies]
  verbs: [list, watch]
# The controller writes to the same status: when it was first, or the watch is behind, the object is read.
- apiGroups: [ostler.dev]
  resources: [configrepositories, harnessruns]
  verbs: [get]
# Prompts and contexts are a part of what a claim is about.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch]
# It says there that a claim was made, a result pushed, or a ledger cannot be used.
- apiGroups: [ostler.dev]
  resources: [configrepositories/status, harnessruns/status]
  verbs: [patch]
# The push credential is a Secret that a ConfigRepository names.
{{ include "ostler.secretRule" . }}
# `kubectl describe` shows what happened to a ledger.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "ostler.own.recorder" -}}
# One recorder writes to a ledger: the lease says which.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [ostler-recorder]
  verbs: [get, list, watch, update]
# A lease that does not exist yet has no name that a right could be bound to.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
{{- end -}}

{{- define "ostler.cluster.recorder" -}}
# A recorder whose CRDs are missing, older or newer must say so instead of losing fields.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: {{ include "ostler.crds" . }}
  verbs: [get]
# Whoever delivers a result shows the token of its pod.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end -}}

{{- define "ostler.rules.api" -}}
# It shows the objects to whoever may see them.
- apiGroups: [ostler.dev]
  resources: [configrepositories, sessions, harnessruns, agents, egresspolicies]
  verbs: [get, list]
{{- end -}}

{{- define "ostler.own.api" -}}
{{- end -}}

{{- define "ostler.cluster.api" -}}
# An API whose CRDs are missing, older or newer must say so instead of losing fields.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: {{ include "ostler.crds" . }}
  verbs: [get]
# Callers show a token: whose is it?
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
# May they do that?
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end -}}

{{- define "ostler.rules.proxy" -}}
# The clone credential is a Secret that a run's session names, and only the proxy sends it.
{{ include "ostler.secretRule" . }}
{{- end -}}

{{- define "ostler.own.proxy" -}}
{{- end -}}

{{- define "ostler.cluster.proxy" -}}
# Every tunnel begins with the token of a pod.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
# A caller is the run's pod that its token names, if it calls from that pod's address; what it may reach stands on that pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- end -}}

{{- define "ostler.secretRule" -}}
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.secrets.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get, watch]
{{- end -}}

{{- define "ostler.crds" -}}
[configrepositories.ostler.dev, sessions.ostler.dev, harnessruns.ostler.dev, agents.ostler.dev, egresspolicies.ostler.dev]
{{- end -}}
