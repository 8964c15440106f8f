//! The pods of runs, as one watch of the whole cluster shows them; of each, only what a judgement needs is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::Deserialize;
use tokio::sync::watch;

use super::{EGRESS, PLACE, ROLE, tokens::Claim};
use crate::{
    egress::{OwnService, Ruleset},
    names::Namespace,
    ports::workloads::{Checkout, ContextContent, ContextFile, NamedPolicy, RunKey},
    proxy::gateway::Caller,
};

/// How long after its sidecar's start a pod may clone. Which of its containers' processes is the agent cannot be seen from outside, and a write of the
/// controller for each run would buy little: the agent never has the sidecar's tokens, and what can be cloned is what its workspace holds.
const CLONING: SignedDuration = SignedDuration::from_mins(30);
/// The sidecar's container; see [`crate::harness::pod`].
const SIDECAR: &str = "sidecar";

/// What is known of something, now.
pub(super) enum Judged<T> {
    Known(T),
    /// It may be known in a moment.
    NotYet(String),
    /// It will not change.
    Never(String),
}

/// The pods that have the label.
pub(super) struct Pods {
    own_services: Vec<OwnService>,
    known: Mutex<BTreeMap<String, Agent>>,
    ready: AtomicBool,
    changed: watch::Sender<()>,
}

/// A pod of a run.
#[derive(Debug)]
struct Agent {
    namespace: String,
    name: String,
    addresses: Vec<IpAddr>,
    finished: bool,
    /// No later than it came into being, by our clock.
    since: Timestamp,
    /// When its sidecar began, or what is known of that.
    began: Timestamp,
    /// What its annotations say; a fault is told to whoever calls.
    asked: Result<Asked, String>,
}

#[derive(Debug, Clone)]
struct Asked {
    namespace: Namespace,
    rules: Arc<Ruleset>,
    checkouts: Arc<[Checkout]>,
}

/// The part of the place's file that counts here.
#[derive(Deserialize)]
struct PlaceFile {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    run: RunKey,
    checkout: Option<Checkout>,
    contexts: Vec<ContextFile>,
    egress: Vec<NamedPolicy>,
}

impl Pods {
    pub(super) fn new(own_services: Vec<OwnService>) -> Self {
        let changed = watch::Sender::default();
        Self { own_services, known: Mutex::default(), ready: AtomicBool::new(false), changed }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any pod has, or had, the address.
    pub(super) fn has(&self, address: IpAddr) -> Judged<()> {
        if self.known().values().any(|agent| agent.addresses.contains(&address)) {
            Judged::Known(())
        } else {
            Judged::NotYet(format!("No pod of a run has the address {address} here."))
        }
    }

    /// The caller that a token names, if it comes from where it should.
    pub(super) fn judge(&self, claim: &Claim, from: IpAddr) -> Judged<Caller> {
        let Claim { namespace, name, uid } = claim;
        let known = self.known();
        let Some(agent) = known.get(uid) else {
            let same = known.values().any(|agent| agent.namespace == *namespace && agent.name == *name);
            let what = if same { "has another UID here" } else { "is none of a run here" };
            return Judged::NotYet(format!("The pod {namespace}/{name} {what}."));
        };
        if agent.namespace != *namespace || agent.name != *name {
            return Judged::Never(format!("The pod {namespace}/{name} has another UID here."));
        }
        if agent.finished {
            return Judged::Never(format!("The pod {namespace}/{name} has ended."));
        }
        if agent.addresses.is_empty() {
            return Judged::NotYet(format!("The pod {namespace}/{name} has no address here."));
        }
        if !agent.addresses.contains(&from) {
            return Judged::Never(format!("The pod {namespace}/{name} does not have the address {from}."));
        }
        match &agent.asked {
            Ok(asked) => Judged::Known(agent.caller(uid, asked, Timestamp::now())),
            Err(fault) => Judged::Never(format!("The pod {namespace}/{name}: {fault}.")),
        }
    }

    fn set(&self, pod: &Pod) {
        let Some(uid) = pod.uid() else { return };
        let mut known = self.known();
        let since = known.get(&uid).map_or_else(Timestamp::now, |agent| agent.since);
        known.insert(uid, Agent::read(pod, since, &self.own_services));
    }
}

impl Agent {
    fn read(pod: &Pod, since: Timestamp, own_services: &[OwnService]) -> Self {
        let status = pod.status.as_ref();
        let created = pod.creation_timestamp().map_or(since, |time| time.0);
        let addresses = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
        let phase = status.and_then(|status| status.phase.as_deref());
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            addresses: addresses
                .filter_map(|found| found.ip.parse::<IpAddr>().ok())
                .map(|ip| ip.to_canonical())
                .collect(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            // the API server's clock may be ahead of ours, or we may be late
            since: since.min(created),
            began: status.and_then(began).unwrap_or(created),
            asked: asked(pod, own_services),
        }
    }

    fn caller(&self, uid: &str, asked: &Asked, now: Timestamp) -> Caller {
        let cloning = if now.duration_since(self.began) < CLONING {
            Ok(())
        } else {
            Err(format!("A pod clones in the first {} minutes of its sidecar.", CLONING.as_mins()))
        };
        Caller {
            namespace: asked.namespace.clone(),
            pod: self.name.clone(),
            uid: uid.to_owned(),
            since: self.since,
            rules: Arc::clone(&asked.rules),
            checkouts: Arc::clone(&asked.checkouts),
            cloning,
        }
    }
}

/// When the sidecar began (a pod may wait for its images for long), else when the kubelet took the pod.
fn began(status: &PodStatus) -> Option<Timestamp> {
    let sidecars = status.init_container_statuses.iter().flatten();
    let sidecar = sidecars.filter(|container| container.name == SIDECAR).find_map(|container| {
        container.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0)
    });
    sidecar.or_else(|| status.start_time.as_ref().map(|time| time.0))
}

/// What the annotations say; a fault as a text without an end.
fn asked(pod: &Pod, own_services: &[OwnService]) -> Result<Asked, String> {
    let place = pod.annotations().get(PLACE).ok_or_else(|| format!("it has no annotation {PLACE}"))?;
    let PlaceFile { spec } = serde_json::from_str(place)
        .map_err(|error| format!("its annotation {PLACE} cannot be read: {error}"))?;
    let namespace = spec.run.namespace;
    if pod.namespace().as_deref() != Some(namespace.as_str()) {
        return Err(format!("its annotation {PLACE} is that of a run of another namespace"));
    }
    let mut policies = match pod.annotations().get(EGRESS) {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| format!("its annotation {EGRESS} cannot be read: {error}"))?,
        None => spec.egress,
    };
    policies.iter_mut().for_each(by_host_and_port);
    let named = policies.iter().map(|policy| (policy.name.as_str(), &policy.spec));
    let rules = Ruleset::parse(named, own_services.to_vec()).map_err(|faults| {
        let first = faults.first().map(|fault| format!("{fault}: {}", fault.fault));
        format!("its policies cannot be read: {}", first.unwrap_or_default())
    })?;
    let contexts = spec.contexts.into_iter().filter_map(|context| match context.content {
        ContextContent::Git { checkout, .. } => Some(checkout),
        ContextContent::Text(_) => None,
    });
    Ok(Asked {
        namespace,
        rules: Arc::new(rules),
        checkouts: spec.checkout.into_iter().chain(contexts).collect(),
    })
}

/// A tunnel shows no method and no path: rules that ask for them are held to by the agent's own proxy, and here by their hosts and by port 80, where such
/// requests can be seen, or the ports that they name.
fn by_host_and_port(policy: &mut NamedPolicy) {
    for rule in &mut policy.spec.rules {
        if rule.methods.is_empty() && rule.paths.is_empty() {
            continue;
        }
        rule.methods.clear();
        rule.paths.clear();
        if rule.ports.is_empty() {
            rule.ports.push(80);
        }
    }
}

/// Keeps the pods as they are. Never ends.
pub(super) async fn watch(client: Client, pods: Arc<Pods>) {
    let (label, value) = ROLE;
    let config = watcher::Config::default().labels(&format!("{label}={value}")).page_size(200);
    let events = watcher(Api::<Pod>::all(client), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed: BTreeSet<String> = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                pods.set(&pod);
            }
            Ok(watcher::Event::InitDone) => {
                pods.known().retain(|uid, _| listed.contains(uid));
                pods.ready.store(true, Ordering::Relaxed);
            }
            Ok(watcher::Event::Apply(pod)) => pods.set(&pod),
            Ok(watcher::Event::Delete(pod)) => {
                pod.uid().map(|uid| pods.known().remove(&uid));
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(target: "ostler::egress", error, "the pods of runs cannot be watched");
                continue;
            }
        }
        pods.changed.send_replace(());
    }
}
