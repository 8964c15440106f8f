//! Effects and status of a step, written. Every write carries the object's UID, and the status its version.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    super::{Context, Error},
    status::{Standing, stand},
    step::{Effect, Step},
};
use crate::{
    kinds::{HarnessRun, ObjectId, Phase, Reason, harness_run::HarnessRunStatus, meta},
    names::Uid,
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
            Effect::Stop(reason) => {
                context.workloads.stop(&at.uid, *reason).await.map_err(|e| workload("stop the agent", e))?;
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

/// Writes the status if it differs, and tells of a new phase.
pub(super) async fn status(
    id: &ObjectId,
    at: &At,
    run: &HarnessRun,
    new: &HarnessRunStatus,
    context: &Context,
) -> Result<(), Error> {
    let json = |status: &HarnessRunStatus| serde_json::to_value(status).map_err(Error::Status);
    let old = run.status.as_ref().map_or_else(|| Ok(Value::Object(serde_json::Map::new())), json)?;
    let Some(patch) = merge_patch(&old, &json(new)?) else { return Ok(()) };
    let written = context.store.write_status(id, at, &patch, meta::CONTROLLER).await;
    written.map_err(|source| Error::Objects { what: "write the status", source })?;
    let denied =
        |status: Option<&HarnessRunStatus>| status.and_then(|s| s.egress.as_ref()).map_or(0, |e| e.denied);
    let denials = denied(Some(new)).saturating_sub(denied(run.status.as_ref()));
    context.metrics.egress_denied(denials.try_into().unwrap_or_default());
    tell(id, &at.uid, run, new, context).await;
    Ok(())
}

async fn tell(id: &ObjectId, uid: &Uid, run: &HarnessRun, new: &HarnessRunStatus, context: &Context) {
    let before = run.status.as_ref().map(|s| (s.phase, s.reason));
    let (Some(phase), Some(reason)) = (new.phase, new.reason) else { return };
    if before == Some((Some(phase), Some(reason))) {
        return;
    }
    let bad = matches!(phase, Phase::Failed | Phase::Lost | Phase::TimedOut | Phase::Held)
        || (phase == Phase::Pending && reason != Reason::Suspended)
        || (phase == Phase::Starting
            && !matches!(reason, Reason::PlaceRequested | Reason::PreparingWorkspace));
    let message = match &new.message {
        Some(words) => format!("{phase}: {words}"),
        None => phase.to_string(),
    };
    let severity = if bad { Severity::Warning } else { Severity::Normal };
    context.store.tell(Happening { about: id.clone(), uid: uid.clone(), severity, reason, message }).await;
}
