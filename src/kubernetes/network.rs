//! The network policy of a namespace: a run's pod reaches the egress proxy and nothing else, and nothing reaches it.
//!
//! Needs `get`, `list`, `watch`, `create` and `patch` on `networkpolicies` (group `networking.k8s.io`), the reading without a namespace. Whether anybody
//! enforces what is written here is not known here; the proof in each pod shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::callers::ROLE;
use crate::{class::Class, kinds::meta::CONTROLLER, names::Namespace};

/// The name of the policy, in each namespace with runs.
pub const NAME: &str = "ostler-agents";

/// The label of a namespace that the API server itself writes, with the namespace's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// How long one write may take, and then the watch until it shows it.
const PATIENCE: Duration = Duration::from_secs(15);
/// The least time between two corrections of one policy, so that two who disagree do not keep the API server busy.
const PACE: Duration = Duration::from_secs(1);

/// The pods of the egress proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySelector {
    /// Their namespace.
    pub namespace: Namespace,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// The port of the pods (not of a Service before them) that takes tunnels.
    pub port: u16,
}

/// Why a namespace has no policy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not take it.
    #[error("the network policy {NAME} of namespace {namespace} cannot be written")]
    Apply {
        /// Where.
        namespace: Namespace,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It was written, and the watch does not show it as it should be.
    #[error("the network policy {NAME} of namespace {namespace} was written and is not seen as written")]
    NotSeen {
        /// Where.
        namespace: Namespace,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Apply { source, .. } => match &**source {
                kube::Error::Api(status) if matches!(status.code, 400..=408 | 422) => Class::Invalid,
                _ => Class::Transient,
            },
            Self::NotSeen { .. } => Class::Transient,
        }
    }
}

/// The policies of all namespaces with runs. Each is written once, watched, and put back when somebody changes or deletes it. Dropped, it no longer watches.
pub struct NetworkPolicies {
    shared: Arc<Shared>,
    _watch: AbortOnDropHandle<()>,
}

struct Shared {
    client: Client,
    spec: NetworkPolicySpec,
    /// Namespaces for which somebody asked.
    wanted: Mutex<BTreeSet<Namespace>>,
    /// Namespaces in which the policy is as it should be.
    good: watch::Sender<BTreeSet<Namespace>>,
}

impl NetworkPolicies {
    /// Begins to watch.
    #[must_use]
    pub fn new(client: Client, proxy: &ProxySelector) -> Self {
        let (wanted, good) = (Mutex::default(), watch::Sender::default());
        let shared = Arc::new(Shared { client, spec: spec(proxy), wanted, good });
        let watch = tokio::spawn(follow(Arc::clone(&shared)));
        Self { shared, _watch: AbortOnDropHandle::new(watch) }
    }

    /// Returns when the namespace has the policy and a watch of the API server has shown it. Asks the API server nothing if that is so already.
    ///
    /// # Errors
    /// When it cannot be written, or is not seen in time.
    pub async fn ensure(&self, namespace: &Namespace) -> Result<(), Error> {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
        let mut good = self.shared.good.subscribe();
        if good.borrow_and_update().contains(namespace) {
            return Ok(());
        }
        self.shared.apply(namespace).await?;
        let seen = timeout(PATIENCE, good.wait_for(|good| good.contains(namespace))).await;
        match seen {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::NotSeen { namespace: namespace.clone() }),
        }
    }
}

impl Shared {
    async fn apply(&self, namespace: &Namespace) -> Result<(), Error> {
        let labels = [("app.kubernetes.io/managed-by", "ostler")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata =
            ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() };
        let policy = NetworkPolicy { metadata, spec: Some(self.spec.clone()) };
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), namespace.as_str());
        let (params, patch) = (PatchParams::apply(CONTROLLER).force(), Patch::Apply(&policy));
        let applied = timeout(PATIENCE, api.patch(NAME, &params, &patch)).await;
        let applied = applied.unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
        applied
            .map(drop)
            .map_err(|source| Error::Apply { namespace: namespace.clone(), source: Box::new(source) })
    }

    fn is_wanted(&self, namespace: &Namespace) -> bool {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }

    /// Notes what is there now; whether that is to be put right.
    fn saw(&self, namespace: &Namespace, spec: Option<&NetworkPolicySpec>) -> bool {
        let good = spec == Some(&self.spec);
        self.good.send_if_modified(|known| {
            if good { known.insert(namespace.clone()) } else { known.remove(namespace) }
        });
        !good && self.is_wanted(namespace)
    }
}

/// What every namespace with runs gets. Fields are as the API server would default them, so that both compare.
fn spec(proxy: &ProxySelector) -> NetworkPolicySpec {
    let selector = |key: &str, value: &str| LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    };
    let to = NetworkPolicyPeer {
        namespace_selector: Some(selector(NAMESPACE_NAME, proxy.namespace.as_str())),
        pod_selector: Some(LabelSelector {
            match_labels: Some(proxy.labels.clone()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    };
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(proxy.port.into())),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicySpec {
        pod_selector: Some(selector(ROLE.0, ROLE.1)),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        ingress: None,
        egress: Some(vec![NetworkPolicyEgressRule { to: Some(vec![to]), ports: Some(vec![port]) }]),
    }
}

/// Watches the policies of this name everywhere and puts those right that were asked for. Never ends.
async fn follow(shared: Arc<Shared>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}")).page_size(200);
    let events = watcher(Api::<NetworkPolicy>::all(shared.client.clone()), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = BTreeSet::new();
    let mut corrected: BTreeMap<Namespace, Instant> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let wrong: Vec<Namespace> = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                vec![]
            }
            Ok(watcher::Event::InitApply(policy)) => {
                listed.extend(namespace(&policy));
                shared.look(&policy).into_iter().collect()
            }
            Ok(watcher::Event::InitDone) => {
                let gone: Vec<_> = shared.good.borrow().difference(&listed).cloned().collect();
                gone.into_iter().filter(|namespace| shared.saw(namespace, None)).collect()
            }
            Ok(watcher::Event::Apply(policy)) => shared.look(&policy).into_iter().collect(),
            Ok(watcher::Event::Delete(policy)) => {
                namespace(&policy).into_iter().filter(|namespace| shared.saw(namespace, None)).collect()
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "network policies cannot be watched");
                vec![]
            }
        };
        for namespace in wrong {
            if let Some(left) = corrected.get(&namespace).and_then(|at| PACE.checked_sub(at.elapsed())) {
                tokio::time::sleep(left).await;
            }
            corrected.insert(namespace.clone(), Instant::now());
            tracing::warn!(%namespace, "somebody changed the network policy {NAME}; it is put back");
            if let Err(error) = shared.apply(&namespace).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%namespace, error, "the network policy {NAME} cannot be put back");
            }
        }
    }
}

impl Shared {
    /// The policy's namespace, if it is to be put right.
    fn look(&self, policy: &NetworkPolicy) -> Option<Namespace> {
        namespace(policy).filter(|namespace| self.saw(namespace, policy.spec.as_ref()))
    }
}

fn namespace(policy: &NetworkPolicy) -> Option<Namespace> {
    policy.namespace()?.parse().ok()
}
