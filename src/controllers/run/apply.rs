//! Effects and status of a step, written. Every write carries the object's UID, and the status its version.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    super::{Context, Error},
    step::{Effect, Step},
};
use crate::{
    kinds::{
        HarnessRun, ObjectId, Phase, Reason,
        condition::{self, types},
        harness_run::HarnessRunStatus,
        meta,
        standing::{Standing, Turned, denials_since, stand, turned},
    },
    ports::{
        objects::{At, Happening, Severity, merge_patch},
        workloads::{self, Place, PlaceSpec},
    },
    telemetry::Verb,
};

/// What the effects left behind.
pub(super) enum Made {
    Nothing,
    /// A new place.
    Place(Box<Place>),
    /// The place cannot be made, ever or yet.
    Refused(Standing),
    /// The object is on its way out; nothing more is written.
    Gone,
}

/// Carries out the effects, in order. The object's version moves on with a change of its finalizers.
pub(super) async fn effects(
    id: &ObjectId,
    run: &HarnessRun,
    step: &Step,
    context: &Context,
) -> Result<(Made, At), Error> {
    let mut at = At::of(run).ok_or_else(|| Error::NotStored(id.to_string()))?;
    let workload = |what, source| Error::Workloads { what, source };
    let mut made = Made::Nothing;
    for effect in &step.effects {
        match effect {
            Effect::AddFinalizer => at = finalizers(id, &at, run, true, context).await?,
            Effect::RemoveFinalizer => {
                at = finalizers(id, &at, run, false, context).await?;
                made = Made::Gone;
            }
            Effect::Ensure(spec) => {
                made = ensure(spec, context).await?;
                if matches!(made, Made::Place(_)) {
                    context.metrics.run_started();
                    context.note(Verb::Start, id, &format!("digest {}", spec.digest));
                }
            }
            Effect::Confirm => {
                context.workloads.confirm(&at.uid).await.map_err(|e| workload("confirm the place", e))?;
            }
            Effect::Stop(reason) if context.asked.was(&at.uid, *reason) => {}
            Effect::Stop(reason) => {
                context.workloads.stop(&at.uid, *reason).await.map_err(|e| workload("stop the agent", e))?;
                let runs = context.caches.runs.all();
                let uids: BTreeSet<&str> =
                    runs.iter().filter_map(|run| run.metadata.uid.as_deref()).collect();
                context.asked.heard(&at.uid, *reason, |uid| uids.contains(uid.as_str()));
                context.note(Verb::Stop, id, reason.reason().as_str());
            }
            Effect::UpdateEgress(policies) => {
                let updated = context.workloads.update_egress(&at.uid, policies).await;
                updated.map_err(|e| workload("update the policies of the place", e))?;
                context.note(Verb::Update, id, "its egress policies changed");
            }
            Effect::RemovePlace => {
                context.workloads.remove(&at.uid).await.map_err(|e| workload("remove the place", e))?;
            }
            Effect::Delete => {
                let any = at.clone().any_version();
                let deleted = context.store.delete(id, &any).await;
                deleted.map_err(|source| Error::Objects { what: "delete a finished run", source })?;
                context.note(Verb::Delete, id, "ttlSecondsAfterFinished");
                made = Made::Gone;
            }
        }
    }
    Ok((made, at))
}

async fn ensure(spec: &PlaceSpec, context: &Context) -> Result<Made, Error> {
    match context.workloads.ensure(spec).await {
        Ok(place) => Ok(Made::Place(Box::new(place))),
        Err(workloads::Error::Refused { reason, message, .. }) => {
            // a Secret may still come, and a quota be freed
            let waits =
                matches!(reason, Reason::SecretNotFound | Reason::SecretNotAllowed | Reason::QuotaExceeded);
            let phase = if waits { Phase::Pending } else { Phase::Failed };
            Ok(Made::Refused(Standing::new(phase, reason, message)))
        }
        Err(source) => Err(Error::Workloads { what: "make the place", source }),
    }
}

async fn finalizers(
    id: &ObjectId,
    at: &At,
    run: &HarnessRun,
    add: bool,
    context: &Context,
) -> Result<At, Error> {
    let mut finalizers = run.finalizers().to_vec();
    finalizers.retain(|f| f != meta::RECORD_FINALIZER);
    if add {
        finalizers.push(meta::RECORD_FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {"finalizers": finalizers}});
    let merged = context.store.merge(id, at, &patch, meta::CONTROLLER).await;
    let merged = merged.map_err(|source| Error::Objects { what: "change the finalizers", source })?;
    Ok(At::of(&merged).unwrap_or_else(|| at.clone()))
}

/// Says why the place of a run cannot be made. The run ends, unless the standing is one that passes.
pub(super) async fn refuse(
    id: &ObjectId,
    at: &At,
    run: &HarnessRun,
    standing: &Standing,
    context: &Context,
) -> Result<(), Error> {
    let now = (context.clock)();
    let mut new = run.status.clone().unwrap_or_default();
    if standing.phase.is_terminal() {
        new.completion_time.get_or_insert(Time(now));
    }
    stand(&mut new, standing, run.metadata.generation, now);
    status(id, at, run, &new, context).await
}

/// True when a status says something that somebody may wait for. Figures, proofs of what everybody expects, and the steps of
/// starting and collecting come with the next thing that happens: a write for each would be half of a run's cost.
fn is_news(old: &HarnessRunStatus, new: &HarnessRunStatus) -> bool {
    let mut waits = new.clone();
    waits.startup.clone_from(&old.startup);
    let denials = |status: &HarnessRunStatus| status.egress.as_ref().map_or(0, |egress| egress.denials.len());
    if denials(new) <= denials(old) {
        waits.egress.clone_from(&old.egress);
    }
    let place = |status: &HarnessRunStatus| status.place.as_ref().map(|place| place.uid.clone());
    if place(new) == place(old) {
        waits.place.clone_from(&old.place);
    }
    let on_its_way = |status: &HarnessRunStatus| {
        use Reason::{CollectingResult, PlaceRequested, PreparingWorkspace, RecordingResult};
        let steps = [CollectingResult, PlaceRequested, PreparingWorkspace, RecordingResult];
        status.reason.is_some_and(|reason| steps.contains(&reason))
    };
    let next_step = old.phase == new.phase && on_its_way(old) && on_its_way(new);
    if next_step {
        waits.reason = old.reason;
    }
    let bad = |c: &Condition| {
        let before = condition::get(&old.conditions, &c.type_);
        c.status != "True" && before.is_none_or(|o| o.status != c.status || !next_step && o != c)
    };
    // limits that a machine cannot enforce were accepted before the run: they are told with its start
    let told_later = |c: &&Condition| c.type_ != types::LIMITS_ENFORCED || old.phase != Some(Phase::Starting);
    if !new.conditions.iter().filter(told_later).any(bad) {
        waits.conditions.clone_from(&old.conditions);
    }
    waits != *old || new.phase.is_none_or(Phase::is_terminal)
}

/// Writes the status if it differs by news, and tells of a new phase.
pub(super) async fn status(
    id: &ObjectId,
    at: &At,
    run: &HarnessRun,
    new: &HarnessRunStatus,
    context: &Context,
) -> Result<(), Error> {
    if run.status.as_ref().is_some_and(|old| !is_news(old, new)) {
        return Ok(());
    }
    let json = |status: &HarnessRunStatus| serde_json::to_value(status).map_err(Error::Status);
    let old = run.status.as_ref().map_or_else(|| Ok(Value::Object(serde_json::Map::new())), json)?;
    let Some(patch) = merge_patch(&old, &json(new)?) else { return Ok(()) };
    let written = context.store.write_status(id, at, &patch, meta::CONTROLLER).await;
    written.map_err(|source| Error::Objects { what: "write the status", source })?;
    context.metrics.egress_denied(denials_since(run.status.as_ref(), new));
    if let Some(Turned { bad, reason, message }) = turned(run.status.as_ref(), new) {
        let severity = if bad { Severity::Warning } else { Severity::Normal };
        let happening = Happening { about: id.clone(), uid: at.uid.clone(), severity, reason, message };
        context.store.tell(happening).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> HarnessRunStatus {
        serde_json::from_value(value).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn figures_and_good_proofs_wait_for_news() {
        let starting = || json!({"phase": "Starting", "reason": "PlaceRequested"});
        let collecting = |reason: &str| json!({"phase": "Collecting", "reason": reason, "conditions": [condition("Ready", "False", reason)]});
        let with = |mut value: Value, field: &str, more: Value| {
            value[field] = more;
            value
        };
        let (proven, unproven) = (
            condition("EgressProven", "True", "EgressProven"),
            condition("LimitsEnforced", "False", "LimitsNotEnforced"),
        );
        let mistrusted = condition("Claimed", "False", "LedgerUntrusted");
        let denial = json!({"allowed": 0, "denied": 1, "denials": [{"host": "h", "port": 1, "reason": "", "count": 1}]});
        let placed = |more: Value| {
            let mut place = json!({"uid": "u", "name": "p"});
            place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            with(starting(), "place", place)
        };
        let ended = json!({"phase": "Succeeded", "reason": "Completed"});
        let cases = [
            ("a figure", starting(), with(starting(), "startup", json!({"clonedMs": 5})), false),
            ("a good proof", starting(), with(starting(), "conditions", json!([proven])), false),
            ("limits of the machine", starting(), with(starting(), "conditions", json!([unproven])), false),
            ("a bad one", starting(), with(starting(), "conditions", json!([mistrusted])), true),
            ("a node", placed(json!({})), placed(json!({"node": "n"})), false),
            (
                "figures of the proxy",
                starting(),
                with(starting(), "egress", json!({"allowed": 9, "denied": 0})),
                false,
            ),
            ("a denial", starting(), with(starting(), "egress", denial), true),
            ("trouble", starting(), with(starting(), "reason", json!("ImageUnavailable")), true),
            ("the end of it", with(starting(), "reason", json!("ImageUnavailable")), starting(), true),
            ("a place", starting(), with(starting(), "place", json!({"uid": "u", "name": "p"})), true),
            (
                "a step of starting",
                starting(),
                with(starting(), "reason", json!("PreparingWorkspace")),
                false,
            ),
            ("a step of collecting", collecting("CollectingResult"), collecting("RecordingResult"), false),
            (
                "why it takes long",
                collecting("RecordingResult"),
                with(collecting("RecordingResult"), "message", json!("not delivered yet")),
                true,
            ),
            ("a phase", starting(), collecting("CollectingResult"), true),
            ("a figure at the end", ended.clone(), with(ended, "startup", json!({"clonedMs": 5})), true),
        ];
        for (what, old, new, news) in cases {
            assert_eq!(is_news(&status(old), &status(new)), news, "{what}");
        }
    }
}
