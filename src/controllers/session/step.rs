//! The next step of a session. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    kinds::{
        HarnessRun, Phase, Reason, Session,
        condition::{self, State, types},
        meta,
        session::{LastRun, Retain, SessionStatus, WorkspaceType},
    },
    resolve::DEFAULT_AGENT,
};

pub(super) struct Observed<'a> {
    pub(super) session: &'a Session,
    pub(super) runs: Vec<&'a HarnessRun>,
    pub(super) agents: Vec<String>,
    pub(super) policies: Vec<String>,
    pub(super) now: Timestamp,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    AddFinalizer,
    RemoveWorkspaceAndFinalizer { keep: bool },
}

#[derive(Debug, PartialEq)]
pub(super) struct Step {
    pub(super) effect: Option<Effect>,
    pub(super) status: SessionStatus,
}

/// What of a run its session's status depends on. The phase of one that goes on is told by the run itself.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    is_active: bool,
    started: Option<(Timestamp, Option<Phase>)>,
    not_allowed: Option<String>,
}

impl Part {
    pub(super) fn of(run: &HarnessRun) -> Self {
        let status = run.status.as_ref();
        let started = status.and_then(|status| {
            Some((status.start_time.as_ref()?.0, status.phase.filter(|phase| phase.is_terminal())))
        });
        Self { is_active: is_active(run), started, not_allowed: not_allowed(&[run]) }
    }
}

/// Decides the next step.
pub(super) fn step(observed: &Observed<'_>) -> Step {
    let session = observed.session;
    let active = observed.runs.iter().filter(|run| is_active(run)).count();
    let mut status = session.status.clone().unwrap_or_default();
    status.observed_generation = session.metadata.generation;
    status.active_runs = Some(i64::try_from(active).unwrap_or(i64::MAX));
    status.last_run = last_run(&observed.runs);
    let deleting = session.metadata.deletion_timestamp.is_some();
    let has_finalizer = session.finalizers().iter().any(|f| f == meta::WORKSPACE_FINALIZER);
    let persistent =
        session.spec.workspace.as_ref().is_some_and(|w| w.type_ == Some(WorkspaceType::Persistent));
    let effect = match (deleting, has_finalizer) {
        (false, false) if persistent => Some(Effect::AddFinalizer),
        (true, true) if active == 0 => {
            let keep = session.spec.workspace.as_ref().is_some_and(|w| w.retain == Some(Retain::Retain));
            Some(Effect::RemoveWorkspaceAndFinalizer { keep })
        }
        _ => None,
    };
    let (state, reason, message) = standing(observed, deleting, active);
    let generation = session.metadata.generation;
    condition::set(&mut status.conditions, types::READY, state, reason, &message, generation, observed.now);
    Step { effect, status }
}

fn standing(observed: &Observed<'_>, deleting: bool, active: usize) -> (State, Reason, String) {
    let spec = &observed.session.spec;
    if deleting {
        return (State::False, Reason::SessionInUse, format!("waiting for {active} active runs to end"));
    }
    if spec.suspend == Some(true) {
        return (State::False, Reason::Suspended, "no run of it starts".to_owned());
    }
    let agent = spec.agent_ref.as_ref().map_or(DEFAULT_AGENT, |r| r.name.as_str());
    if spec.agent_ref.is_some() && !observed.agents.iter().any(|name| name == agent) {
        return (State::False, Reason::AgentNotFound, format!("Agent {agent} does not exist"));
    }
    let missing = spec.egress_policy_refs.iter().find(|r| !observed.policies.contains(&r.name));
    if let Some(policy) = missing {
        return (
            State::False,
            Reason::EgressPolicyNotFound,
            format!("EgressPolicy {} does not exist", policy.name),
        );
    }
    if let Some(why) = not_allowed(&observed.runs) {
        return (State::False, Reason::RepositoryNotAllowed, why);
    }
    (State::True, Reason::Ready, String::new())
}

/// What a run that waits for an allowed repository was told, if all that it would clone is its session's or its agent's.
/// The rules are the run's to read: a session without such a run is not held against them.
fn not_allowed(runs: &[&HarnessRun]) -> Option<String> {
    let told = runs.iter().filter_map(|run| {
        let status = run.status.as_ref()?;
        let names_none = run.spec.repository.is_none() && run.spec.contexts.is_empty();
        let waits = status.reason == Some(Reason::RepositoryNotAllowed)
            && !status.phase.is_some_and(Phase::is_terminal);
        (names_none && waits).then(|| status.message.clone().unwrap_or_default())
    });
    // whichever is asked first, a session says the same
    told.min()
}

/// True while the run has asked for its claim and not ended.
fn is_active(run: &HarnessRun) -> bool {
    let Some(status) = &run.status else { return false };
    let asked = status.claim.as_ref().is_some_and(|c| c.requested_at.is_some());
    asked && !status.phase.is_some_and(Phase::is_terminal)
}

fn last_run(runs: &[&HarnessRun]) -> Option<LastRun> {
    let started = runs.iter().filter_map(|run| {
        let status = run.status.as_ref()?;
        let start = status.start_time.as_ref()?.0;
        Some((start, LastRun { name: run.name_any(), phase: status.phase? }))
    });
    started.max_by_key(|(start, last)| (*start, last.name.clone())).map(|(_, last)| last)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn session(metadata: Value, spec: Value) -> Session {
        let mut object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Session", "metadata": {"name": "s"}, "spec": spec});
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    fn run(name: &str, phase: &str, start: &str) -> HarnessRun {
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun", "metadata": {"name": name}, "spec": {},
            "status": {"phase": phase, "startTime": start, "claim": {"requestedAt": start}}
        }))
        .unwrap()
    }

    fn observed<'a>(session: &'a Session, runs: &[&'a HarnessRun]) -> Observed<'a> {
        Observed {
            session,
            runs: runs.to_vec(),
            agents: vec!["default".into()],
            policies: vec![],
            now: Timestamp::from_second(1).unwrap(),
        }
    }

    #[test]
    fn readiness_names_what_is_missing() {
        let cases = [
            (json!({}), "True", "Ready"),
            (json!({"agentRef": {"name": "x"}}), "False", "AgentNotFound"),
            (json!({"egressPolicyRefs": [{"name": "x"}]}), "False", "EgressPolicyNotFound"),
            (json!({"suspend": true, "agentRef": {"name": "x"}}), "False", "Suspended"),
        ];
        for (spec, state, reason) in cases {
            let session = session(json!({}), spec);
            let step = step(&observed(&session, &[]));
            let ready = condition::get(&step.status.conditions, types::READY).unwrap();
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), (state, reason));
        }
    }

    #[test]
    fn a_repository_that_is_not_allowed_is_told_while_a_run_waits_for_it() {
        let waiting = |spec: Value, phase: &str| -> HarnessRun {
            serde_json::from_value(json!({
                "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun", "metadata": {"name": "a"}, "spec": spec,
                "status": {"phase": phase, "reason": "RepositoryNotAllowed", "message": "/srv/a is none of them"}
            }))
            .unwrap()
        };
        let session = session(json!({}), json!({"repository": {"url": "/srv/a"}}));
        for (spec, phase, reason) in [
            (json!({}), "Pending", "RepositoryNotAllowed"),
            (json!({}), "Failed", "Ready"),
            (json!({"repository": {"url": "/srv/b"}}), "Pending", "Ready"),
        ] {
            let run = waiting(spec, phase);
            let status = step(&observed(&session, &[&run])).status;
            let ready = condition::get(&status.conditions, types::READY).unwrap();
            assert_eq!(ready.reason, reason, "{:?}", run.spec.repository);
            assert_eq!(ready.message.contains("/srv/a is none"), reason != "Ready");
        }
    }

    #[test]
    fn the_last_run_is_the_one_that_started_last() {
        let session = session(json!({}), json!({}));
        let (old, new) =
            (run("b", "Failed", "2026-01-01T00:00:00Z"), run("a", "Running", "2026-01-02T00:00:00Z"));
        let status = step(&observed(&session, &[&old, &new])).status;
        assert_eq!(status.active_runs, Some(1));
        assert_eq!(status.last_run.unwrap().name, "a");
    }

    #[test]
    fn a_session_in_use_stays_and_its_workspace_goes_as_told() {
        let spec = |retain: &str| json!({"workspace": {"type": "Persistent", "retain": retain}});
        let new = session(json!({}), spec("Delete"));
        assert_eq!(step(&observed(&new, &[])).effect, Some(Effect::AddFinalizer));
        let leaving =
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [meta::WORKSPACE_FINALIZER]});
        let busy = run("a", "Running", "2026-01-01T00:00:00Z");
        let deleted = session(leaving.clone(), spec("Delete"));
        assert_eq!(step(&observed(&deleted, &[&busy])).effect, None);
        assert_eq!(
            step(&observed(&deleted, &[])).effect,
            Some(Effect::RemoveWorkspaceAndFinalizer { keep: false })
        );
        let kept = session(leaving, spec("Retain"));
        assert_eq!(
            step(&observed(&kept, &[])).effect,
            Some(Effect::RemoveWorkspaceAndFinalizer { keep: true })
        );
    }
}
