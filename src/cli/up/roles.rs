//! The roles of one process: store, controllers, syncers, recorders, API; started in the order in which they need one
//! another.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Mutex, PoisonError},
};

use kube::ResourceExt;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Error, UpArgs, clock, key,
    state_folder::{Layout, StateFolder},
};
use crate::{
    api, controllers,
    embedded::{
        access::EmbeddedAccess,
        objects::{self as embedded_objects, EmbeddedStore},
        secrets::SecretFolder,
        workloads::{EmbeddedWorkloads, Options},
    },
    kinds::{ConfigRepository, ObjectId, Typed, meta},
    ledger,
    ports::{
        Access, Secrets,
        objects::{Objects, Store, untyped},
    },
    recorder, sync,
    telemetry::{AuditLog, Metrics},
};

/// What runs, and what others need of it.
pub(super) struct Roles {
    pub(super) caches: controllers::Caches,
    pub(super) progress: sync::Progress,
    /// Where the API listens.
    pub(super) api: SocketAddr,
    tasks: JoinSet<()>,
    _socket: embedded_objects::Server,
}

impl Roles {
    /// Waits until every role has ended.
    pub(super) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
