//! Turns in a session: at most so many runs at once, the oldest first.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kube::ResourceExt;

use super::step::Turn;
use crate::kinds::{HarnessRun, Phase, Reason, Session};

/// Turns that were given and are not in the cache yet: by run UID, the session's name.
///
/// Only the elected controller gives turns, so memory is enough; after a restart the cache is complete before the first
/// decision.
#[derive(Default)]
pub(in crate::controllers) struct Turns(Mutex<BTreeMap<String, String>>);

impl Turns {
    /// Decides whether it is the run's turn, and remembers a yes.
    pub(super) fn ask(
        &self,
        run: &HarnessRun,
        session: Option<&Session>,
        others: &[impl AsRef<HarnessRun>],
    ) -> Turn {
        let Some(session) = session else { return Turn::Now };
        let slots = session.spec.max_concurrent_runs.unwrap_or(1) as usize;
        let name = session.name_any();
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_session = |other: &&HarnessRun| {
            other.uid() != run.uid() && other.spec.session_ref.as_ref().is_some_and(|r| r.name == name)
        };
        let others: Vec<&HarnessRun> = others.iter().map(AsRef::as_ref).filter(of_session).collect();
        for seen in others.iter().filter(|other| asked(other)).filter_map(|other| other.uid()) {
            given.remove(&seen);
        }
        given.retain(|uid, _| {
            Some(uid) == run.uid().as_ref() || others.iter().any(|o| o.uid().as_ref() == Some(uid))
        });
        let taken: Vec<String> = others
            .iter()
            .filter(|o| holds(o) || o.uid().is_some_and(|uid| given.get(&uid) == Some(&name)))
            .map(|o| o.name_any())
            .collect();
        let earlier = others.iter().filter(|other| waits(other) && older(other, run)).count();
        if taken.len() + earlier < slots {
            given.insert(run.uid().unwrap_or_default(), name);
            return Turn::Now;
        }
        Turn::Wait(match taken.first() {
            Some(first) => format!("session {name} runs {} of {slots}: {first}", taken.len()),
            None => format!("older runs of session {name} go first"),
        })
    }
}

/// True while the run takes one of its session's slots.
fn holds(run: &HarnessRun) -> bool {
    asked(run) && !run.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_terminal)
}

fn asked(run: &HarnessRun) -> bool {
    run.status.as_ref().and_then(|s| s.claim.as_ref()).is_some_and(|c| c.requested_at.is_some())
}

/// True while nothing but its turn keeps the run from starting.
pub(super) fn waits(run: &HarnessRun) -> bool {
    run.status
        .as_ref()
        .is_some_and(|s| s.phase == Some(Phase::Queued) && s.reason == Some(Reason::SessionBusy))
}

fn older(a: &HarnessRun, b: &HarnessRun) -> bool {
    let key = |run: &HarnessRun| (run.creation_timestamp().map(|t| t.0), run.name_any());
    key(a) < key(b)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn run(name: &str, status: serde_json::Value) -> Arc<HarnessRun> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
                "metadata": {"namespace": "team", "name": name, "uid": format!("uid-{name}"),
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"sessionRef": {"name": "s"}}, "status": status
            }))
            .unwrap(),
        )
    }

    fn session(slots: u32) -> Session {
        let mut session = Session::new("s", crate::kinds::session::SessionSpec::default());
        session.spec.max_concurrent_runs = Some(slots);
        session
    }

    fn running() -> serde_json::Value {
        json!({"phase": "Running", "claim": {"requestedAt": "2026-01-01T00:00:00Z"}})
    }

    fn busy() -> serde_json::Value {
        json!({"phase": "Queued", "reason": "SessionBusy"})
    }

    #[test]
    fn one_at_a_time_and_the_oldest_first() {
        let turns = Turns::default();
        let (a, b, c) = (run("a", running()), run("b", busy()), run("c", busy()));
        let all = [a, b.clone(), c.clone()];
        assert!(matches!(turns.ask(&b, Some(&session(1)), &all), Turn::Wait(_)));
        assert_eq!(turns.ask(&b, Some(&session(2)), &all), Turn::Now);
        let ended = run("a", json!({"phase": "Failed", "claim": {"requestedAt": "2026-01-01T00:00:00Z"}}));
        let all = [ended, b.clone(), c.clone()];
        let turns = Turns::default();
        assert!(matches!(turns.ask(&c, Some(&session(1)), &all), Turn::Wait(_)), "b is older");
        assert_eq!(turns.ask(&b, Some(&session(1)), &all), Turn::Now);
    }

    #[test]
    fn a_turn_that_the_cache_does_not_show_yet_counts() {
        let turns = Turns::default();
        let (a, b) = (run("a", json!({})), run("b", json!({})));
        let all = [a.clone(), b.clone()];
        assert_eq!(turns.ask(&a, Some(&session(1)), &all), Turn::Now);
        assert!(matches!(turns.ask(&b, Some(&session(1)), &all), Turn::Wait(_)));
        assert_eq!(turns.ask(&a, Some(&session(1)), &all), Turn::Now, "asking again keeps it");
        let gone = [b.clone()];
        assert_eq!(turns.ask(&b, Some(&session(1)), &gone), Turn::Now, "a deleted run gives its turn back");
    }
}
