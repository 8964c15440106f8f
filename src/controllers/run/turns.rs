//! Turns in a session: at most so many runs at once, the oldest first.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::step::Turn;
use crate::kinds::{HarnessRun, Phase, Reason, Session};

/// Turns that were given and are not in the cache yet: by run UID, the session's.
///
/// Only the elected controller gives turns, so memory is enough; after a restart the cache is complete before the first
/// decision.
#[derive(Default)]
pub(in crate::controllers) struct Turns(Mutex<BTreeMap<String, String>>);

impl Turns {
    /// Decides whether it is the run's turn among all runs of its session, and remembers a yes.
    ///
    /// What it says of one that waits does not change while others come and go: it would be a write for each of them.
    pub(super) fn ask(
        &self,
        run: &HarnessRun,
        session: &Session,
        of_session: &[impl AsRef<HarnessRun>],
    ) -> Turn {
        let slots = slots(session);
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = of_session.iter().map(AsRef::as_ref).filter(|other| uid(other) != uid(run));
        let (mut shown, mut taken, mut earlier) = (BTreeMap::new(), 0, 0);
        for other in others {
            // one that ended before it asked for its claim never will
            let is_given = given.contains_key(uid(other)) && !asked(other) && !is_over(other);
            shown.insert(uid(other), is_given);
            taken += usize::from(is_given || holds(other));
            earlier += usize::from(!is_given && waits(other) && age(other) < age(run));
        }
        let session_uid = session.metadata.uid.as_deref().unwrap_or_default();
        given.retain(|of, session| {
            session != session_uid || of == uid(run) || shown.get(of.as_str()).is_some_and(|still| *still)
        });
        if taken + earlier < slots {
            given.insert(uid(run).to_owned(), session_uid.to_owned());
            return Turn::Now;
        }
        let name = session.name_any();
        Turn::Wait(format!(
            "session {name} runs {slots} at a time (spec.maxConcurrentRuns), the oldest first"
        ))
    }
}

/// How many runs of a session may be at work at once.
pub(super) fn slots(session: &Session) -> usize {
    session.spec.max_concurrent_runs.unwrap_or(1) as usize
}

fn uid(run: &HarnessRun) -> &str {
    run.metadata.uid.as_deref().unwrap_or_default()
}

/// True while the run takes one of its session's slots.
pub(super) fn holds(run: &HarnessRun) -> bool {
    asked(run) && !is_over(run)
}

/// True once the run has ended.
pub(super) fn is_over(run: &HarnessRun) -> bool {
    run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_terminal)
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

/// What orders runs: the oldest first, and by name those of one second.
pub(super) fn age(run: &HarnessRun) -> (Option<Timestamp>, String) {
    (run.creation_timestamp().map(|created| created.0), run.name_any())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::api::ObjectMeta;
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
        session.metadata.uid = Some("uid-s".to_owned());
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
        assert!(matches!(turns.ask(&b, &session(1), &all), Turn::Wait(_)));
        assert_eq!(turns.ask(&b, &session(2), &all), Turn::Now);
        let ended = run("a", json!({"phase": "Failed", "claim": {"requestedAt": "2026-01-01T00:00:00Z"}}));
        let all = [ended, b.clone(), c.clone()];
        let turns = Turns::default();
        assert!(matches!(turns.ask(&c, &session(1), &all), Turn::Wait(_)), "b is older");
        assert_eq!(turns.ask(&b, &session(1), &all), Turn::Now);
    }

    #[test]
    fn a_turn_that_the_cache_does_not_show_yet_counts() {
        let turns = Turns::default();
        let (a, b, c) = (run("a", json!({})), run("b", json!({})), run("c", json!({})));
        let all = [a.clone(), b.clone()];
        assert_eq!(turns.ask(&a, &session(1), &all), Turn::Now);
        assert!(matches!(turns.ask(&b, &session(1), &all), Turn::Wait(_)));
        assert_eq!(turns.ask(&a, &session(1), &all), Turn::Now, "asking again keeps it");
        let elsewhere = Session {
            metadata: ObjectMeta { uid: Some("uid-t".to_owned()), ..session(1).metadata },
            ..session(1)
        };
        assert_eq!(turns.ask(&c, &elsewhere, std::slice::from_ref(&c)), Turn::Now);
        assert!(
            matches!(turns.ask(&b, &session(1), &all), Turn::Wait(_)),
            "another session's turn changes nothing"
        );
        let stopped = [run("a", json!({"phase": "Stopped"})), b.clone()];
        assert_eq!(
            turns.ask(&b, &session(1), &stopped),
            Turn::Now,
            "one that ended before it began gives it back"
        );
        let turns = Turns::default();
        assert_eq!(turns.ask(&a, &session(1), &all), Turn::Now);
        let gone = [b.clone()];
        assert_eq!(turns.ask(&b, &session(1), &gone), Turn::Now, "a deleted run gives its turn back");
    }
}
