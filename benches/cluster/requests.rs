//! What the API server was asked, from its audit log.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use crate::cluster::{AuditLine, Cluster};

/// Requests by verb, of one user in a stretch of time. Leases are apart: they are renewed whatever happens.
#[derive(Debug, Default, Clone)]
pub(crate) struct Requests {
    by_verb: BTreeMap<String, usize>,
    leases: usize,
}

impl Requests {
    /// How many lines the log has: the begin of a stretch.
    pub(crate) fn mark(cluster: &Cluster) -> usize {
        cluster.audit().len()
    }

    /// What this user asked for since.
    pub(crate) fn since(cluster: &Cluster, mark: usize, user: &str) -> Self {
        let mut requests = Self::default();
        for line in cluster.audit().iter().skip(mark).filter(|line| line.user.username == user) {
            if line.object_ref.resource == "leases" {
                requests.leases += 1;
            } else {
                *requests.by_verb.entry(named(line)).or_default() += 1;
            }
        }
        requests
    }

    pub(crate) fn json(&self) -> Value {
        json!({"byVerb": self.by_verb, "leases": self.leases})
    }
}

/// `patch`, or `patch status`.
fn named(line: &AuditLine) -> String {
    if line.object_ref.subresource.is_empty() {
        line.verb.clone()
    } else {
        format!("{} {}", line.verb, line.object_ref.subresource)
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.by_verb.iter().map(|(verb, count)| format!("{count} {verb}")).collect();
        f.write_str(&if all.is_empty() { "none".to_owned() } else { all.join(", ") })
    }
}
