//! Everything that a decision needs, from caches and the place.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;

use super::{
    super::{Context, Error},
    step::{Ledger, Observed, Turn},
};
use crate::{
    kinds::{
        ConfigRepository, HarnessRun, Phase, Reason, Session,
        condition::{self, types},
        config_repository::ClaimMode,
        harness_run::StartFrom,
    },
    ports::workloads::{Place, RunKey},
    resolve::{
        self, World,
        record::{Record, record_of},
        rules,
    },
};

/// Looks at the run's place.
pub(super) async fn place(run: &HarnessRun, context: &Context) -> Result<Option<Place>, Error> {
    let Some(uid) = run.uid().and_then(|uid| uid.parse().ok()) else {
        return Err(Error::NotStored(run.name_any()));
    };
    let seen = context.workloads.observe(&uid).await;
    let seen = seen.map_err(|source| Error::Workloads { what: "observe the place", source })?;
    if seen.is_some() || !is_missed(run) {
        return Ok(seen);
    }
    let (Ok(namespace), Ok(name)) = (run.namespace().unwrap_or_default().parse(), run.name_any().parse())
    else {
        return Err(Error::NotStored(run.name_any()));
    };
    let found = context.workloads.find(&RunKey { namespace, name, uid }).await;
    found.map_err(|source| Error::Workloads { what: "find the place", source })
}

/// True when a place that is not seen would be a place that vanished: a cache that lags must not decide that.
fn is_missed(run: &HarnessRun) -> bool {
    run.status.as_ref().is_some_and(|status| {
        let over = status.phase.is_some_and(Phase::is_terminal) || status.result.is_some();
        status.place.is_some() && !over
    })
}

/// Puts together what a decision needs. Reads caches only.
pub(super) fn observe<'a>(run: &'a HarnessRun, place: Option<Place>, context: &Context) -> Observed<'a> {
    let world = world(run, context);
    let session = run.spec.session_ref.as_ref().and_then(|r| world.sessions.get(&r.name)).map(Arc::as_ref);
    let repositories = context.caches.repositories.all();
    let repositories: Vec<&ConfigRepository> = repositories.iter().map(Arc::as_ref).collect();
    let record = record_of(run, session, &repositories);
    let digest = resolve::digest_of(run, &world);
    let resolved = digest.clone().and_then(|digest| resolve::resolve(run, &digest, &world));
    let suspended = suspended(session, &record);
    let ledger = ledger(&record);
    let unasked =
        run.status.as_ref().is_none_or(|s| s.claim.is_none() && s.phase.is_none_or(|p| !p.is_terminal()));
    let ready = resolved.is_ok() && suspended.is_none() && !matches!(ledger, Ledger::Held { .. });
    let wanted = unasked && ready && run.spec.stop != Some(true) && run.metadata.deletion_timestamp.is_none();
    let turn = match session {
        Some(session) if wanted => {
            let namespace = run.namespace().unwrap_or_default();
            let of_session = context.caches.runs.of_session(&namespace, &session.name_any());
            context.turns.ask(run, session, &of_session)
        }
        _ => Turn::Now,
    };
    Observed {
        run,
        digest: digest.unwrap_or_default(),
        resolved,
        suspended,
        ledger,
        turn,
        place,
        ttl: run
            .spec
            .ttl_seconds_after_finished
            .or_else(|| session.and_then(|s| s.spec.ttl_seconds_after_finished)),
        now: (context.clock)(),
    }
}

/// The objects that the run may refer to, by name.
fn world(run: &HarnessRun, context: &Context) -> World {
    let namespace = run.namespace().unwrap_or_default();
    let caches = &context.caches;
    let repositories = caches.repositories.all();
    let rules = rules::of_all(repositories.iter().map(Arc::as_ref));
    let mut world = World { rules, ..World::default() };
    if let Some(name) = run.spec.session_ref.as_ref().map(|r| r.name.as_str())
        && let Some(session) = caches.sessions.get(&namespace, name)
    {
        if run.spec.start_from == Some(StartFrom::PreviousRun) {
            world.previous_branch = previous_branch(run, &session, context);
        }
        world.sessions.insert(name.to_owned(), session);
    }
    world.agents = by_name(caches.agents.within(&namespace));
    world.policies = by_name(caches.policies.within(&namespace));
    world.config_maps = by_name(caches.config_maps.within(&namespace));
    world
}

fn by_name<K: ResourceExt>(objects: Vec<Arc<K>>) -> BTreeMap<String, Arc<K>> {
    objects.into_iter().map(|object| (object.name_any(), object)).collect()
}

/// The code branch of the session's run that ended last and pushed one.
fn previous_branch(run: &HarnessRun, session: &Session, context: &Context) -> Option<String> {
    let runs = context.caches.runs.of_session(&run.namespace().unwrap_or_default(), &session.name_any());
    let finished = runs.iter().filter(|other| other.metadata.uid != run.metadata.uid);
    let pushed = finished.filter_map(|other| {
        let status = other.status.as_ref()?;
        let ended = status.completion_time.as_ref()?.0;
        let branch = status.changes.as_ref()?.branch.clone()?;
        status.phase.is_some_and(Phase::is_terminal).then_some((ended, branch))
    });
    pushed.max_by_key(|(ended, _)| *ended).map(|(_, branch)| branch)
}

fn suspended(session: Option<&Session>, record: &Record<'_>) -> Option<String> {
    if let Some(session) = session.filter(|s| s.spec.suspend == Some(true)) {
        return Some(format!("Session {} is suspended; ostler resume session/{0}", session.name_any()));
    }
    match record {
        Record::In(repository) if repository.spec.suspend == Some(true) => {
            Some(format!("ConfigRepository {} is suspended", repository.name_any()))
        }
        _ => None,
    }
}

/// What the recorder says of its ledger, in the repository's status.
fn ledger(record: &Record<'_>) -> Ledger {
    let repository = match record {
        Record::Nowhere => return Ledger::None,
        Record::Gone(name) => {
            let message = format!("ConfigRepository {name}, which is to record this run, does not exist");
            return Ledger::Held { reason: Reason::LedgerUnavailable, message };
        }
        Record::In(repository) => repository,
    };
    let claims_in_cluster =
        repository.spec.write_back.as_ref().and_then(|w| w.claim) == Some(ClaimMode::Cluster);
    let conditions = repository.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    match condition::get(conditions, types::LEDGER_READY) {
        Some(ready) if ready.status == "True" => Ledger::Ready,
        _ if claims_in_cluster => Ledger::Ready,
        Some(doubt) => {
            let reasons = [Reason::LedgerUntrusted, Reason::LedgerRewritten];
            let reason =
                reasons.into_iter().find(|r| r.as_str() == doubt.reason).unwrap_or(Reason::LedgerUnavailable);
            Ledger::Held { reason, message: doubt.message.clone() }
        }
        None => Ledger::Held {
            reason: Reason::LedgerUnavailable,
            message: "the ledger was not read yet".to_owned(),
        },
    }
}
