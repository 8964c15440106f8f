//! The five kinds of group `ostler.dev/v1alpha1`, as they travel.
//!
//! These are the wire types: what a file, the embedded store and an API server hold. A field exists here only once it
//! works, so that a field from the future is an unknown field and therefore an error. Nothing under `spec` has a schema
//! default: the digest is taken over what the author wrote, and defaults are applied by [`crate::resolve`].

pub mod agent;
pub mod condition;
pub mod config_repository;
pub mod egress_policy;
pub mod harness_run;
pub mod meta;
pub mod reason;
pub mod session;
pub mod shared;
pub(crate) mod standing;

use std::{fmt, str::FromStr};

use kube::core::{ApiResource, CustomResourceExt, DynamicObject, Resource};
use serde::{Deserialize, Serialize};

pub use agent::Agent;
pub use config_repository::ConfigRepository;
pub use egress_policy::EgressPolicy;
pub use harness_run::HarnessRun;
pub use reason::{Phase, Reason};
pub use session::Session;

/// The API group of our kinds.
pub const GROUP: &str = "ostler.dev";
/// The only version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of our kinds.
pub const API_VERSION: &str = "ostler.dev/v1alpha1";

/// A kind that ostler reads or writes: its five and `ConfigMap` (prompts and contexts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// What to pull, whom to trust, where to record.
    ConfigRepository,
    /// Who may talk to whom.
    EgressPolicy,
    /// How an agent is run.
    Agent,
    /// A unit of work.
    Session,
    /// One execution.
    HarnessRun,
    /// Prompts and contexts.
    ConfigMap,
}

impl Kind {
    /// Every kind, in the order in which objects are applied: what is referred to comes first.
    pub const ALL: [Self; 6] = [
        Self::ConfigRepository,
        Self::ConfigMap,
        Self::EgressPolicy,
        Self::Agent,
        Self::Session,
        Self::HarnessRun,
    ];

    /// The five of our group.
    pub const OURS: [Self; 5] =
        [Self::ConfigRepository, Self::EgressPolicy, Self::Agent, Self::Session, Self::HarnessRun];

    /// The kind's name, as in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigRepository => "ConfigRepository",
            Self::EgressPolicy => "EgressPolicy",
            Self::Agent => "Agent",
            Self::Session => "Session",
            Self::HarnessRun => "HarnessRun",
            Self::ConfigMap => "ConfigMap",
        }
    }

    /// Names that people type: plural, singular and the short name.
    #[must_use]
    pub fn typed_names(self) -> [&'static str; 3] {
        match self {
            Self::ConfigRepository => ["configrepositories", "configrepository", "cfgrepo"],
            Self::EgressPolicy => ["egresspolicies", "egresspolicy", "egp"],
            Self::Agent => ["agents", "agent", "agt"],
            Self::Session => ["sessions", "session", "ses"],
            Self::HarnessRun => ["harnessruns", "harnessrun", "hrun"],
            Self::ConfigMap => ["configmaps", "configmap", "cm"],
        }
    }

    /// Finds a kind by any name that people type, in any case; `run` and `runs` mean `HarnessRun`.
    #[must_use]
    pub fn from_typed_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "run" | "runs") {
            return Some(Self::HarnessRun);
        }
        Self::ALL.into_iter().find(|kind| kind.typed_names().contains(&name.as_str()))
    }

    /// What kube's dynamic machinery needs to know of the kind.
    #[must_use]
    pub fn api_resource(self) -> ApiResource {
        match self {
            Self::ConfigRepository => ConfigRepository::api_resource(),
            Self::EgressPolicy => EgressPolicy::api_resource(),
            Self::Agent => Agent::api_resource(),
            Self::Session => Session::api_resource(),
            Self::HarnessRun => HarnessRun::api_resource(),
            Self::ConfigMap => ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind that ostler knows")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// A typed object of a known [`Kind`].
pub trait Typed:
    Resource<DynamicType = ()> + Clone + Serialize + serde::de::DeserializeOwned + Send + Sync + 'static
{
    /// The kind.
    const KIND: Kind;
}

macro_rules! typed {
    ($($name:ident),*) => { $(impl Typed for $name { const KIND: Kind = Kind::$name; })* };
}
typed!(ConfigRepository, EgressPolicy, Agent, Session, HarnessRun);

impl Typed for k8s_openapi::api::core::v1::ConfigMap {
    const KIND: Kind = Kind::ConfigMap;
}

/// An object whose kind is known and whose body is plain JSON; what the Objects port carries.
pub type Object = DynamicObject;

/// Which object: kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: crate::names::Namespace,
    /// Its name.
    pub name: crate::names::ObjectName,
}

impl ObjectId {
    /// Puts the three parts together.
    #[must_use]
    pub fn new(kind: Kind, namespace: crate::names::Namespace, name: crate::names::ObjectName) -> Self {
        Self { kind, namespace, name }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
