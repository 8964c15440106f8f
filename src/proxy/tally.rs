//! What the proxy counts.

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    egress::{Decision, Request, Verdict},
    kinds::harness_run::{self, EgressSeen},
};

/// Characters of a method that are kept.
const METHOD_CHARS: usize = 16;
/// Bounds of the status field, from its schema.
const STATUS_DENIALS: usize = 8;
const STATUS_REASON_CHARS: usize = 512;
/// The reason of a denial by the cluster's proxy, which tells the rule in words.
const REFUSED: &str = "ClusterProxy";

/// Requests to one target refused (or, audited, let through) for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The host as a URL writes it.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The method, `CONNECT` for a tunnel.
    pub method: String,
    /// The closed set of [`crate::egress::Reason::word`], and `ClusterProxy` for a refusal of the cluster's proxy.
    pub reason: &'static str,
    /// The reason in words.
    pub explanation: String,
    /// Whether it passed because the policies only audit.
    pub audited: bool,
    /// The rule that would open it, as YAML; absent where no rule can.
    pub suggestion: Option<String>,
    /// How often.
    pub count: u64,
    /// When first.
    pub first: Timestamp,
}

/// What a proxy has seen since it began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Requests and tunnels that a rule opened.
    pub allowed: u64,
    /// Those refused.
    pub denied: u64,
    /// Those that passed only because the policies audit.
    pub audited: u64,
    /// Those that passed and whose target did not resolve or accept.
    pub failed: u64,
    /// Connections turned away because there were too many.
    pub overloaded: u64,
    /// Bytes sent to targets.
    pub bytes_up: u64,
    /// Bytes that came from targets.
    pub bytes_down: u64,
    /// The first different denials, at most [`super::Limits::denials`]; `denied` and `audited` count all.
    pub denials: Vec<Denial>,
}

impl Snapshot {
    /// Counts one decision made at `now`.
    fn record(&mut self, decision: &Decision, now: Timestamp, denials: usize) {
        let (reason, audited) = match decision.verdict() {
            Verdict::Allowed(_) => {
                self.allowed += 1;
                return;
            }
            Verdict::Audited(reason) => (reason, true),
            Verdict::Denied(reason) => (reason, false),
        };
        *(if audited { &mut self.audited } else { &mut self.denied }) += 1;
        let request = decision.request();
        let denial = Denial {
            host: request.host.to_string(),
            port: request.port,
            method: method_of(request),
            reason: reason.word(),
            explanation: reason.to_string(),
            audited,
            suggestion: decision.suggestion().map(|suggestion| suggestion.to_string()),
            count: 1,
            first: now,
        };
        self.keep(denial, denials);
    }

    /// Counts a refusal of the cluster's proxy.
    fn refused(&mut self, request: &Request, message: &str, now: Timestamp, denials: usize) {
        self.denied += 1;
        let denial = Denial {
            host: request.host.to_string(),
            port: request.port,
            method: method_of(request),
            reason: REFUSED,
            explanation: message.chars().take(STATUS_REASON_CHARS).collect(),
            audited: false,
            suggestion: None,
            count: 1,
            first: now,
        };
        self.keep(denial, denials);
    }

    fn keep(&mut self, denial: Denial, denials: usize) {
        let same = |known: &&mut Denial| {
            (&known.host, known.port, &known.method, known.reason, known.audited)
                == (&denial.host, denial.port, &denial.method, denial.reason, denial.audited)
        };
        if let Some(known) = self.denials.iter_mut().find(same) {
            known.count += 1;
        } else if self.denials.len() < denials {
            self.denials.push(denial);
        }
    }
}

fn method_of(request: &Request) -> String {
    request.method.as_deref().unwrap_or("CONNECT").chars().take(METHOD_CHARS).collect()
}

/// What status and result say of it.
impl From<&Snapshot> for EgressSeen {
    fn from(snapshot: &Snapshot) -> Self {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let denials = snapshot.denials.iter().take(STATUS_DENIALS).map(|denial| {
            let (audited, advice) =
                (if denial.audited { "audited: " } else { "" }, denial.suggestion.as_deref());
            let advice = advice.map(|rule| format!("; would be allowed by {}", rule.replace('\n', ", ")));
            let reason = format!("{audited}{}{}", denial.explanation, advice.unwrap_or_default());
            harness_run::Denial {
                host: denial.host.clone(),
                port: denial.port.into(),
                reason: reason.chars().take(STATUS_REASON_CHARS).collect(),
                count: count(denial.count),
            }
        });
        Self {
            allowed: count(snapshot.allowed + snapshot.audited),
            denied: count(snapshot.denied),
            denials: denials.collect(),
        }
    }
}

/// The one place where the connections of a proxy count.
#[derive(Debug)]
pub(super) struct Tally {
    snapshot: watch::Sender<Snapshot>,
    denials: usize,
}

impl Tally {
    pub(super) fn new(denials: usize) -> Self {
        Self { snapshot: watch::Sender::default(), denials }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    pub(super) fn decided(&self, decision: &Decision) {
        self.snapshot.send_modify(|s| s.record(decision, Timestamp::now(), self.denials));
    }

    pub(super) fn refused(&self, request: &Request, message: &str) {
        self.snapshot.send_modify(|s| s.refused(request, message, Timestamp::now(), self.denials));
    }

    pub(super) fn failed(&self) {
        self.snapshot.send_modify(|s| s.failed += 1);
    }

    pub(super) fn overloaded(&self) {
        self.snapshot.send_modify(|s| s.overloaded += 1);
    }

    /// Adds bytes without waking anybody: a status that changed with every chunk would be written for ever.
    pub(super) fn moved(&self, up: u64, down: u64) {
        self.snapshot.send_if_modified(|s| {
            s.bytes_up += up;
            s.bytes_down += down;
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{Ruleset, decide};

    #[test]
    fn denials_aggregate_and_are_capped() {
        let rules = Ruleset::default();
        let mut snapshot = Snapshot::default();
        let hosts = ["a.test", "b.test", "A.test.", "c.test"];
        for (second, host) in (0..).zip(hosts) {
            let decision = decide(&rules, Request::tunnel(host.parse().unwrap(), 443));
            snapshot.record(&decision, Timestamp::from_second(second).unwrap(), 2);
        }
        let kept: Vec<_> =
            snapshot.denials.iter().map(|d| (d.host.as_str(), d.count, d.first.as_second())).collect();
        assert_eq!(kept, [("a.test", 2, 0), ("b.test", 1, 1)]);
        assert_eq!(snapshot.denied, 4);
    }
}
