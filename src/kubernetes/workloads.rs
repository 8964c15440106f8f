//! The Workloads port on an API server: one pod per run.
//!
//! Everything that has to outlive this process is in the pods themselves. One watch shows them; a task for each listens
//! to its sidecar, over a stream that the kubelet opens in the sidecar's container.

mod answer;
mod events;
mod keeper;
mod output;
mod pod;
mod pods;
mod seen;
mod settings;
mod sidecar;
mod trouble;
mod watch;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::{
    answer::{refusal, unavailable},
    keeper::Attending,
    pod::{FINALIZER, SESSION_UID},
    pods::Pods,
    seen::Seen,
    watch::First,
};
pub use self::{
    events::STALL,
    output::{OutputError, SidecarError, copy_output},
    pod::name as pod_name,
    settings::{PodSettings, PullPolicy},
};
use crate::{
    class::Class,
    harness::{control::Request, secrets},
    kinds::{Reason, meta},
    kubernetes::{callers::EGRESS, network::NetworkPolicies},
    names::{Namespace, Uid},
    ports::{
        Secrets, Workloads,
        workloads::{Error, NamedPolicy, Place, PlaceSpec, RunKey, SidecarStream, Stage, StopReason},
    },
};

/// The longest that one request may take, with the client's own repeats after 429 and 503.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a pod that is removed gets besides the run's own grace.
const REMOVAL_SECONDS: u64 = 30;

/// The pods cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API server refuses, or does not answer.
    #[error("the pods of runs cannot be watched")]
    Watch(#[source] Arc<kube::runtime::watcher::Error>),
    /// It does not answer at all.
    #[error("the API server does not list the pods of runs within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Places that are pods.
///
/// A place is written at most four times: its pod is created, our finalizer is taken off when its UID is in the run's
/// status, the pod is deleted; and before a session's first run, the claim of its workspace is created. Once more for each
/// change of its policies. Needs `create`,
/// `get`, `list`, `watch`, `patch` and `delete` on pods, `create` on `pods/exec`, `list` on events, and `create`, `get`,
/// `list` and `delete` on persistentvolumeclaims.
pub struct KubeWorkloads {
    client: Client,
    settings: PodSettings,
    secrets: Arc<dyn Secrets>,
    pods: Arc<Pods>,
    network: Option<NetworkPolicies>,
    _watch: AbortOnDropHandle<()>,
}

impl KubeWorkloads {
    /// Begins to look after the pods of runs, and waits until all that exist are known. Ends when it is dropped; the pods
    /// go on. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the pods cannot be listed within half a minute.
    pub async fn start(
        client: Client,
        settings: PodSettings,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Arc<Self>, StartError> {
        let pods = Pods::new(Attending {
            client: client.clone(),
            secrets: Arc::clone(&secrets),
            stall: settings.stall,
        });
        let api = match &settings.scope {
            Some(namespace) => Api::namespaced(client.clone(), namespace.as_str()),
            None => Api::all(client.clone()),
        };
        let first = tokio::sync::watch::Sender::default();
        let mut looked = first.subscribe();
        let watch = tokio::spawn(watch::follow(api, Arc::downgrade(&pods), first));
        let watch = AbortOnDropHandle::new(watch);
        let done = timeout(PATIENCE, looked.wait_for(|first| matches!(first, First::Done))).await.is_ok();
        if !done {
            return Err(match &*looked.borrow() {
                First::Failed(error) => StartError::Watch(Arc::clone(error)),
                First::Looking | First::Done => StartError::Silent,
            });
        }
        let network = settings.network.as_ref().map(|proxy| NetworkPolicies::new(client.clone(), proxy));
        Ok(Arc::new(Self { client, settings, secrets, pods, network, _watch: watch }))
    }

    fn pods_in(&self, namespace: &Namespace) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace.as_str())
    }

    fn claims_in(&self, namespace: &Namespace) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace.as_str())
    }

    /// The pod of a run that has one.
    fn existing(&self, run: &Uid) -> Result<Arc<Seen>, Error> {
        self.pods.get(run).ok_or_else(|| Error::NotFound(unknown(run)))
    }

    /// Makes the pod, or finds the one that an earlier attempt made.
    async fn create(&self, pod: &Pod, run: &RunKey) -> Result<Seen, Error> {
        let api = self.pods_in(&run.namespace);
        let params = PostParams { field_manager: Some(meta::CONTROLLER.to_owned()), ..PostParams::default() };
        let name = pod.name_any();
        let pod = match answered(run, "creating its pod", api.create(&params, pod)).await? {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                answered(run, "reading its pod", api.get(&name)).await?
            }
            other => other,
        };
        let pod = pod.map_err(|error| refusal(run, "creating its pod", error))?;
        Seen::of(pod).filter(|seen| seen.run() == run).ok_or_else(|| {
            let message = format!(
                "a pod {name} exists that is not of this run; delete it, and give the run a new name"
            );
            Error::Refused { run: run.clone(), reason: Reason::PlaceFailed, message }
        })
    }

    /// Waits until the namespace of a run has its network policy.
    async fn close_the_way_out(&self, run: &RunKey) -> Result<(), Error> {
        let Some(network) = &self.network else { return Ok(()) };
        network.ensure(&run.namespace).await.map_err(|error| match error.class() {
            Class::Invalid => {
                let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                let message = format!("{error}: {why}");
                Error::Refused { run: run.clone(), reason: Reason::AdmissionRefused, message }
            }
            _ => unavailable(run, "closing its way out", error),
        })
    }

    /// Makes the claim of a session's workspace, unless there is one.
    async fn claim(&self, spec: &PlaceSpec, session: &Uid) -> Result<(), Error> {
        let (run, claim) = (&spec.run, pod::claim(spec, session));
        let api = self.claims_in(&run.namespace);
        let params = PostParams { field_manager: Some(meta::CONTROLLER.to_owned()), ..PostParams::default() };
        let found = match answered(run, "creating its workspace", api.create(&params, &claim)).await? {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                answered(run, "reading its workspace", api.get(&claim.name_any())).await?
            }
            other => other,
        };
        let found = found.map_err(|error| refusal(run, "creating its workspace", error))?;
        if found.labels().get(SESSION_UID).is_some_and(|uid| uid == session.as_str()) {
            return Ok(());
        }
        let message = format!("a claim {} exists that is not of this session; delete it", claim.name_any());
        Err(Error::Refused { run: run.clone(), reason: Reason::PlaceFailed, message })
    }

    /// Takes our finalizer off this very pod, whatever else changes about it meanwhile.
    async fn let_go(&self, seen: &Seen) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({"metadata": {
            "uid": seen.uid,
            "$deleteFromPrimitiveList/finalizers": [FINALIZER],
        }}));
        let params =
            PatchParams { field_manager: Some(meta::CONTROLLER.to_owned()), ..PatchParams::default() };
        let api = self.pods_in(&seen.run().namespace);
        let patched =
            answered(seen.run(), "taking the finalizer off its pod", api.patch(&seen.name, &params, &patch));
        gone_is_fine(seen.run(), "taking the finalizer off its pod", OTHER_UID.1, patched.await?)?;
        self.pods.confirmed(seen);
        Ok(())
    }

    /// Tells the cluster's proxy what this very pod may reach: it reads the pod's annotation.
    async fn open_the_way_out(&self, seen: &Seen, policies: &[NamedPolicy]) -> Result<(), Error> {
        let what = "writing the policies of its pod";
        let text = serde_json::to_string(policies).map_err(|error| unavailable(seen.run(), what, error))?;
        let patch = Patch::Merge(json!({"metadata": {"uid": seen.uid, "annotations": {EGRESS: text}}}));
        let params =
            PatchParams { field_manager: Some(meta::CONTROLLER.to_owned()), ..PatchParams::default() };
        let api = self.pods_in(&seen.run().namespace);
        let patched = answered(seen.run(), what, api.patch(&seen.name, &params, &patch)).await?;
        patched.map(drop).map_err(|error| refusal(seen.run(), what, error))
    }

    async fn ask(&self, seen: &Seen, request: &Request) -> Result<(), Error> {
        let asked = sidecar::ask(&self.client, seen, request).await;
        asked.map_err(|error| unavailable(seen.run(), "asking its sidecar", error))
    }
}

/// Names a run of which only the UID is known.
fn unknown(run: &Uid) -> RunKey {
    RunKey {
        namespace: "unknown".parse().expect("a namespace"),
        name: "unknown".parse().expect("a name"),
        uid: run.clone(),
    }
}

/// Waits for an answer. The outer error: there is none.
async fn answered<T>(
    run: &RunKey,
    what: &'static str,
    request: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<Result<T, kube::Error>, Error> {
    timeout(PATIENCE, request).await.map_err(|silence| unavailable(run, what, silence))
}

/// How an API server refuses a change of another UID than the object's: when it deletes, and when it patches.
const OTHER_UID: (u16, u16) = (409, 422);

/// An object that is gone, or is another one of the same name, needs nothing more.
fn gone_is_fine<T>(
    run: &RunKey,
    what: &'static str,
    other_uid: u16,
    answer: Result<T, kube::Error>,
) -> Result<(), Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == other_uid => Ok(()),
        Err(error) => Err(unavailable(run, what, error)),
        Ok(_) => Ok(()),
    }
}

#[async_trait]
impl Workloads for KubeWorkloads {
    async fn ensure(&self, spec: &PlaceSpec) -> Result<Place, Error> {
        if let Some(place) = self.pods.place(&spec.run.uid) {
            return Ok(place);
        }
        let pod = pod::compose(&self.settings, spec, Timestamp::now())?;
        // Before anything is made: a secret that is missing is the author's to mend.
        secrets::check(&*self.secrets, spec).await?;
        self.close_the_way_out(&spec.run).await?;
        if let Some(session) = &spec.persistent_workspace {
            self.claim(spec, session).await?;
        }
        let seen = self.create(&pod, &spec.run).await?;
        let place = seen.place(None, None, Timestamp::now());
        self.pods.made(seen);
        Ok(place)
    }

    async fn observe(&self, run: &Uid) -> Result<Option<Place>, Error> {
        Ok(self.pods.place(run))
    }

    async fn find(&self, run: &RunKey) -> Result<Option<Place>, Error> {
        let api = self.pods_in(&run.namespace);
        let found = answered(run, "reading its pod", api.get_opt(&pod::name(run))).await?;
        let found = found.map_err(|error| unavailable(run, "reading its pod", error))?;
        let Some(seen) = found.and_then(Seen::of).filter(|seen| seen.run() == run) else { return Ok(None) };
        let place = seen.place(self.pods.said(&seen).as_ref(), None, Timestamp::now());
        self.pods.made(seen);
        Ok(Some(place))
    }

    async fn list(&self) -> Result<Vec<Place>, Error> {
        Ok(self.pods.places())
    }

    fn changes(&self) -> BoxStream<'static, RunKey> {
        self.pods.changes()
    }

    async fn confirm(&self, run: &Uid) -> Result<(), Error> {
        let seen = self.existing(run)?;
        if seen.confirmed { Ok(()) } else { self.let_go(&seen).await }
    }

    async fn stop(&self, run: &Uid, reason: StopReason) -> Result<(), Error> {
        let seen = self.existing(run)?;
        match self.pods.place(run).map(|place| place.stage) {
            Some(Stage::Created | Stage::Preparing | Stage::Running) => {
                self.ask(&seen, &Request::Stop(reason)).await
            }
            _ => Ok(()),
        }
    }

    async fn update_egress(&self, run: &Uid, policies: &[NamedPolicy]) -> Result<(), Error> {
        let seen = self.existing(run)?;
        crate::harness::check_policies(policies).map_err(|message| Error::Refused {
            run: seen.run().clone(),
            reason: Reason::InvalidSpec,
            message,
        })?;
        // The proxy of the cluster first: what it is told later, it would judge by the old policies meanwhile. It lets
        // nothing more through than the sidecar's own proxy does, which is told next.
        self.open_the_way_out(&seen, policies).await?;
        self.ask(&seen, &Request::Egress(policies.to_vec())).await
    }

    async fn remove(&self, run: &Uid) -> Result<(), Error> {
        let Some(seen) = self.pods.get(run) else { return Ok(()) };
        if seen.deleted.is_none() {
            let grace = seen.file.spec.grace.as_secs() + REMOVAL_SECONDS;
            let params = DeleteParams {
                grace_period_seconds: u32::try_from(grace).ok(),
                preconditions: Some(Preconditions {
                    uid: Some(seen.uid.to_string()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            let api = self.pods_in(&seen.run().namespace);
            let deleted = answered(seen.run(), "deleting its pod", api.delete(&seen.name, &params)).await?;
            gone_is_fine(seen.run(), "deleting its pod", OTHER_UID.0, deleted)?;
        }
        if !seen.confirmed {
            self.let_go(&seen).await?;
        }
        self.pods.removed(&seen);
        Ok(())
    }

    async fn remove_workspace(&self, session: &Uid) -> Result<(), Error> {
        let (what, session_key) = ("deleting a session's workspace", unknown(session));
        let all: Api<PersistentVolumeClaim> = match &self.settings.scope {
            Some(namespace) => self.claims_in(namespace),
            None => Api::all(self.client.clone()),
        };
        let params = ListParams::default().labels(&format!("{SESSION_UID}={session}"));
        let claims = answered(&session_key, what, all.list(&params)).await?;
        for claim in claims.map_err(|error| unavailable(&session_key, what, error))? {
            let Some(namespace) = claim.namespace().and_then(|name| name.parse().ok()) else { continue };
            let preconditions = Preconditions { uid: claim.uid(), resource_version: None };
            let params = DeleteParams::default().preconditions(preconditions);
            let api = self.claims_in(&namespace);
            let deleted = answered(&session_key, what, api.delete(&claim.name_any(), &params)).await?;
            gone_is_fine(&session_key, what, OTHER_UID.0, deleted)?;
        }
        Ok(())
    }

    async fn open(&self, run: &Uid) -> Result<Box<dyn SidecarStream>, Error> {
        let seen = self.existing(run)?;
        let opened = sidecar::open(&self.client, &seen).await;
        let stream = opened.map_err(|error| unavailable(seen.run(), "a stream to its sidecar", error))?;
        Ok(Box::new(stream))
    }
}
