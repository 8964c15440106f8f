//! Who enforces network policies on the node: a test double, as no network plugin can be had that does.

use std::{fs, sync::atomic::Ordering, time::Duration};

use super::Node;
use crate::cluster::{MASTERS, eventually};

/// How well network policies are enforced. `tests/cluster/cmd/enforcer` says what that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enforcer {
    /// Not at all; so it is with a new node.
    Off,
    /// As most network plugins do: from a moment after a pod has its address.
    Correct,
    /// From this long after a pod has its address.
    Late(Duration),
    /// But for each such packet of those that are not allowed to a pod or from it: 3 is every third.
    Leaking(u32),
}

impl Node {
    /// When this returns, policies are enforced so.
    ///
    /// # Panics
    /// When the enforcer does not start, with what it said.
    pub(crate) async fn enforcer(&self, how: Enforcer) {
        let kubeconfig = self.cluster.kubeconfig_for("enforcer", &[MASTERS]).display().to_string();
        let kubeconfig = format!("--kubeconfig={kubeconfig}");
        let arguments = match how {
            Enforcer::Off => vec!["--off".to_owned()],
            Enforcer::Correct => vec![kubeconfig],
            Enforcer::Late(by) => vec![kubeconfig, format!("--delay={}ms", by.as_millis())],
            Enforcer::Leaking(each) => vec![kubeconfig, format!("--leak={each}")],
        };
        // A log of its own for each, where `ready` is said once.
        let count = self.enforcers.fetch_add(1, Ordering::Relaxed);
        let name = format!("enforcer-{}", count + 1);
        {
            let mut server = self.cluster.server().await;
            server.keeper().stop(&format!("enforcer-{count}"));
            server.keeper().start(&name, &self.programs.join("enforcer"), &arguments);
        }
        let log = self.cluster.folder().join(format!("{name}.log"));
        // It is there a moment after the keeper said that it started.
        eventually("the enforcer has begun", async || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let ready = said.lines().any(|line| line == "ready");
            let runs = ready || self.cluster.server().await.keeper().alive(&name);
            assert!(runs, "the enforcer ended:\n{said}");
            ready.then_some(())
        })
        .await;
    }
}
