//! What a role really asks of the API server, with the identity that the chart gives it: its own process, as far as a
//! machine without a node lets it go, and the adapters that it is made of for the rest.

mod controller;
mod deeds;
mod process;
mod serving;

use std::{path::PathBuf, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{Api, Client, api::DeleteParams};

use crate::{
    cluster::{AuditLine, Cluster},
    scenarios::up::Ended,
};

/// The longest that a role may take for all of it; what is refused is seen far earlier.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// A role and its identity.
pub(super) struct Smoke<'a> {
    cluster: &'a Cluster,
    /// The namespace of the release.
    home: String,
    /// The one namespace that it looks after; none: any.
    watched: Option<String>,
    role: String,
    /// The service account, as the API server names it.
    pub(super) user: String,
    kubeconfig: PathBuf,
    client: Client,
    admin: Client,
}

/// One attempt: a namespace and a folder of its own.
struct Attempt<'a> {
    smoke: &'a Smoke<'a>,
    namespace: String,
    folder: tempfile::TempDir,
    /// Where the audit log ended when it began.
    since: u64,
}

impl<'a> Smoke<'a> {
    pub(super) async fn new(cluster: &'a Cluster, home: &str, role: &str) -> Self {
        let group = format!("system:serviceaccounts:{home}");
        let user = format!("system:serviceaccount:{home}:ostler-{role}");
        Self {
            cluster,
            home: home.to_owned(),
            watched: None,
            role: role.to_owned(),
            kubeconfig: cluster.kubeconfig_for(&user, &[&group]),
            client: cluster.user(&user, &[&group]).await,
            admin: cluster.client().await,
            user,
        }
    }

    /// The same, and it looks after that namespace alone. There can be only one attempt in it.
    pub(super) fn only_in(self, namespace: &str) -> Self {
        Self { watched: Some(namespace.to_owned()), ..self }
    }

    /// Where the audit log ends.
    pub(super) fn now(&self) -> u64 {
        self.cluster.audit_from(0).1
    }

    /// What this role asked for since then.
    pub(super) async fn asked(&self, since: u64) -> Vec<AuditLine> {
        self.lines_are_written(since).await;
        let (mut lines, _) = self.cluster.audit_from(since);
        lines.retain(|line| line.is_of(&[&self.user]));
        lines
    }

    /// Returns when the audit log has what was asked before.
    async fn lines_are_written(&self, since: u64) {
        let mark = format!("mark-{}", uuid::Uuid::new_v4().simple());
        let maps: Api<ConfigMap> = Api::namespaced(self.admin.clone(), &self.home);
        assert!(maps.get_opt(&mark).await.unwrap().is_none());
        let is_there = |line: &AuditLine| line.object_ref.name == mark;
        until(async || self.cluster.audit_from(since).0.iter().any(is_there)).await;
    }

    /// Waits until the API server has refused something to this role, from that byte of the audit log on.
    async fn refused(&self, mut from: u64) -> String {
        loop {
            let lines;
            (lines, from) = self.cluster.audit_from(from);
            if let Some(line) = lines.iter().find(|line| line.is_of(&[&self.user]) && line.code() == 403) {
                return line.what();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A new namespace for one attempt.
async fn attempt<'a>(smoke: &'a Smoke<'a>) -> Attempt<'a> {
    let namespace = match &smoke.watched {
        Some(namespace) => namespace.clone(),
        None => smoke.cluster.namespace("smoke").await,
    };
    // Whoever led before left its lease, and the next one must make it anew.
    let leases: Api<Lease> = Api::namespaced(smoke.admin.clone(), &smoke.home);
    // there may be none
    let _ = leases.delete(&format!("ostler-{}", smoke.role), &DeleteParams::default()).await;
    let from = smoke.cluster.audit_from(0).1;
    Attempt { smoke, namespace, folder: tempfile::tempdir().unwrap(), since: from }
}

/// How a process ends that is asked to after something was refused to it.
pub(super) async fn end_of_a_refused_one(smoke: &Smoke<'_>) -> Ended {
    let attempt = attempt(smoke).await;
    let process = match smoke.role.as_str() {
        "controller" => attempt.start_controller(),
        _ => attempt.start_recorder().0,
    };
    let refused = tokio::time::timeout(PATIENCE, smoke.refused(attempt.since)).await;
    println!("{}: refused: {}", smoke.role, refused.expect("nothing was refused"));
    tokio::task::spawn_blocking(|| process.stop()).await.unwrap()
}

/// Does everything once, in a new namespace.
///
/// # Errors
/// With what was refused, or what did not work.
pub(super) async fn smoke(smoke: &Smoke<'_>) -> Result<(), String> {
    let attempt = attempt(smoke).await;
    let all = async {
        match smoke.role.as_str() {
            "controller" => attempt.controller().await,
            "recorder" => attempt.recorder().await,
            "api" => attempt.api().await,
            "proxy" => attempt.proxy().await,
            other => Err(format!("there is no role {other}")),
        }
    };
    tokio::select! {
        refused = smoke.refused(attempt.since) => Err(format!("refused: {refused}")),
        done = tokio::time::timeout(PATIENCE, all) => done.unwrap_or_else(|_| panic!("{}: neither done nor refused", smoke.role)),
    }
}

/// Looks until it is so; whoever calls this has a patience of their own.
async fn until(is_it: impl AsyncFn() -> bool) {
    while !is_it().await {
        tokio::time::sleep(PAUSE).await;
    }
}
