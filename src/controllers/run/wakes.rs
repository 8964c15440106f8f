//! Which runs look again because something else changed.
//!
//! Every status that is written, of a run, a session or a repository, comes by here, and thousands of runs may wait: so
//! only what a run can act on wakes it, and only the run that can.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::turns::{self, is_over};
use crate::{
    cache::{Cache, Caches},
    controllers::{Context, news::News},
    kinds::{
        ConfigRepository, HarnessRun, Typed,
        condition::{self, types},
    },
};

/// Changes that are looked at as one.
const AT_ONCE: usize = 1024;

type Woken = BoxStream<'static, ObjectRef<HarnessRun>>;

/// Runs to look at again, for as long as there are caches.
pub(super) fn wakes(context: &Context) -> impl Stream<Item = ObjectRef<HarnessRun>> + Send + 'static {
    let caches = &context.caches;
    let places = context.workloads.changes();
    let secrets = context.secrets.changes().map(|(namespace, _)| namespace.to_string());
    futures::stream::select_all([
        places.map(|key| ObjectRef::new(key.name.as_str()).within(key.namespace.as_str())).boxed(),
        of_turns(caches),
        of_sessions(caches),
        of_repositories(caches),
        of_namespaces(caches, namespaces(&caches.agents)),
        of_namespaces(caches, namespaces(&caches.policies)),
        of_namespaces(caches, namespaces(&caches.config_maps)),
        of_namespaces(caches, secrets.boxed()),
    ])
}

/// Runs whose turn it may be: the oldest that wait in a session, when one of its runs ends, goes, or waits no more.
fn of_turns(caches: &Caches) -> Woken {
    let (runs, sessions) = (caches.runs.clone(), caches.sessions.clone());
    let mut queues = Queues::default();
    let woken = runs.touched().flat_map(move |touched| {
        let run = runs.reader().get(&touched);
        let Some(name) = queues.left(&touched, run.as_deref()) else { return futures::stream::iter(vec![]) };
        let namespace = touched.namespace.unwrap_or_default();
        let slots = sessions.get(&namespace, &name).map_or(1, |session| turns::slots(&session));
        let mut waiting = runs.of_session(&namespace, &name);
        let holding = waiting.iter().filter(|run| turns::holds(run)).count();
        waiting.retain(|run| turns::waits(run));
        waiting.sort_by_cached_key(|run| turns::age(run));
        // turns that were given and do not show yet count as free: one too many looks again, and waits on
        waiting.truncate(slots.saturating_sub(holding));
        futures::stream::iter(waiting.iter().map(|run| ObjectRef::from_obj(run.as_ref())).collect::<Vec<_>>())
    });
    woken.boxed()
}

/// The runs of sessions that have not ended, with their session's name, and whether they take or want a turn.
#[derive(Default)]
struct Queues(HashMap<ObjectRef<HarnessRun>, (String, bool)>);

impl Queues {
    /// The session in which another run may go on, now that this one is as it is; `None`: gone.
    fn left(&mut self, touched: &ObjectRef<HarnessRun>, run: Option<&HarnessRun>) -> Option<String> {
        let session = run.filter(|run| !is_over(run)).and_then(|run| {
            let name = run.spec.session_ref.as_ref()?.name.clone();
            Some((name, turns::holds(run) || turns::waits(run)))
        });
        let Some((name, queues)) = session else { return self.0.remove(touched).map(|(name, _)| name) };
        let before = self.0.insert(touched.clone(), (name, queues));
        before.filter(|(_, queued)| *queued && !queues).map(|(name, _)| name)
    }
}

/// Runs of sessions that changed but for their status: those that have not ended, and all when the session lets them go
/// some time after their end.
fn of_sessions(caches: &Caches) -> Woken {
    let (runs, sessions) = (caches.runs.clone(), caches.sessions.clone());
    let mut news = News::default();
    let woken = sessions.touched().ready_chunks(AT_ONCE).flat_map(move |touched| {
        let mut changed = BTreeMap::new();
        for reference in touched {
            let session = sessions.reader().get(&reference);
            if news.is(&reference, session.as_ref().map(|session| fingerprint(session.as_ref(), ()))) {
                let lets_go = session.is_some_and(|s| s.spec.ttl_seconds_after_finished.is_some());
                changed.insert((reference.namespace, reference.name), lets_go);
            }
        }
        let lets_go = |run: &HarnessRun| {
            let name = run.spec.session_ref.as_ref()?.name.clone();
            changed.get(&(run.namespace(), name)).copied()
        };
        look(&runs, !changed.is_empty(), |run| lets_go(run).is_some_and(|all| all || !is_over(run)))
    });
    woken.boxed()
}

/// All runs that have not ended, when a repository changed or the word on its ledger did: it may be where they are recorded.
fn of_repositories(caches: &Caches) -> Woken {
    let (runs, repositories) = (caches.runs.clone(), caches.repositories.clone());
    let mut news = News::default();
    let woken = repositories.touched().ready_chunks(AT_ONCE).flat_map(move |touched| {
        let mut any = false;
        for reference in touched {
            let repository = repositories.reader().get(&reference);
            any |= news.is(&reference, repository.map(|r| fingerprint(r.as_ref(), on_ledger(&r))));
        }
        look(&runs, any, |run| !is_over(run))
    });
    woken.boxed()
}

/// Runs in these namespaces that have not ended.
fn of_namespaces(caches: &Caches, namespaces: BoxStream<'static, String>) -> Woken {
    let runs = caches.runs.clone();
    let woken = namespaces.ready_chunks(AT_ONCE).flat_map(move |changed| {
        let changed: BTreeSet<String> = changed.into_iter().collect();
        let within = |run: &HarnessRun| run.metadata.namespace.as_ref().is_some_and(|n| changed.contains(n));
        look(&runs, true, |run| within(run) && !is_over(run))
    });
    woken.boxed()
}

/// Where objects of a kind changed.
fn namespaces<K: Typed + std::fmt::Debug>(cache: &Cache<K>) -> BoxStream<'static, String> {
    cache.touched().map(|reference| reference.namespace.unwrap_or_default()).boxed()
}

fn look(
    runs: &Cache<HarnessRun>,
    any: bool,
    which: impl Fn(&HarnessRun) -> bool,
) -> futures::stream::Iter<std::vec::IntoIter<ObjectRef<HarnessRun>>> {
    let found = if any { runs.reader().state_filter(which) } else { vec![] };
    futures::stream::iter(found.iter().map(|run| ObjectRef::from_obj(run.as_ref())).collect::<Vec<_>>())
}

/// What an author says, and more.
fn fingerprint(object: &impl ResourceExt, more: impl Hash) -> u64 {
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, meta.deletion_timestamp.is_some(), &meta.annotations, more)
        .hash(&mut hasher);
    hasher.finish()
}

/// What the recorder says of a ledger.
fn on_ledger(repository: &ConfigRepository) -> Option<(&str, &str, &str)> {
    let conditions = &repository.status.as_ref()?.conditions;
    let ready = condition::get(conditions, types::LEDGER_READY)?;
    Some((&ready.status, &ready.reason, &ready.message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::Session;

    fn run(name: &str, status: Value) -> HarnessRun {
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "team", "name": name},
            "spec": {"sessionRef": {"name": "s"}}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn a_run_leaves_its_queue_once() {
        let asked = json!({"requestedAt": "2026-01-01T00:00:00Z"});
        let new = json!({});
        let waits = json!({"phase": "Queued", "reason": "SessionBusy"});
        let runs = json!({"phase": "Running", "claim": asked});
        let ended = json!({"phase": "Failed", "claim": asked});
        let stuck = json!({"phase": "Pending", "reason": "AgentNotFound"});
        let left = Some("s".to_owned());
        let cases = [
            ("starts and ends", vec![(Some(&new), None), (Some(&runs), None), (Some(&ended), left.clone())]),
            ("ended before", vec![(Some(&ended), None), (None, None)]),
            (
                "is told more of its end",
                vec![(Some(&runs), None), (Some(&ended), left.clone()), (Some(&ended), None)],
            ),
            ("goes while it waits", vec![(Some(&waits), None), (None, left.clone())]),
            ("goes before it was told anything", vec![(Some(&new), None), (None, left.clone())]),
            ("cannot start any more", vec![(Some(&waits), None), (Some(&stuck), left), (Some(&stuck), None)]),
        ];
        for (name, steps) in cases {
            let mut queues = Queues::default();
            for (status, expected) in steps {
                let run = status.map(|status| run("r", status.clone()));
                let reference = ObjectRef::new("r").within("team");
                assert_eq!(queues.left(&reference, run.as_ref()), expected, "{name}: {status:?}");
            }
        }
    }

    #[test]
    fn a_status_is_no_news() {
        let session = |spec: Value, status: Value| -> Session {
            let generation = if spec["suspend"] == true { 2 } else { 1 };
            let metadata = json!({"namespace": "team", "name": "s", "uid": "u", "generation": generation});
            let object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Session", "metadata": metadata,
                "spec": spec, "status": status});
            serde_json::from_value(object).unwrap()
        };
        let mut news = News::<Session, u64>::default();
        let reference = ObjectRef::new("s").within("team");
        let steps = [
            (Some(session(json!({}), json!({}))), true),
            (Some(session(json!({}), json!({"activeRuns": 1}))), false),
            (Some(session(json!({"suspend": true}), json!({"activeRuns": 1}))), true),
            (Some(session(json!({"suspend": true}), json!({"activeRuns": 0}))), false),
            (None, true),
            (Some(session(json!({}), json!({}))), true),
        ];
        for (number, (session, expected)) in steps.into_iter().enumerate() {
            let now = session.as_ref().map(|session| fingerprint(session, ()));
            assert_eq!(news.is(&reference, now), expected, "step {number}");
        }
    }
}
