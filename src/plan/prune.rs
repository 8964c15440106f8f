//! What happens to objects that nobody asks for any more.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{
    Action, Decisions, ItemReport, Live, Policy, Prune, Step,
    decide::is_prompt,
    live::{annotation, at, is_ours, left_alone, phase, spec},
};
use crate::{
    kinds::{Kind, Object, ObjectId, Phase, Reason, meta},
    manifest::Desired,
    names::RepoPath,
};

/// Why something stays.
type Held = (Reason, String);

/// Decides on every object of ours that is not in `desired`.
pub(super) fn unwanted(desired: &Desired, live: &Live, policy: &Policy, decisions: &mut Decisions) {
    let ours = || live.objects().filter(|(_, object)| is_ours(object, policy));
    let gone = ours().filter(|(id, object)| {
        !desired.objects.contains_key(*id) && object.metadata.deletion_timestamp.is_none()
    });
    let mut going: BTreeSet<&ObjectId> = BTreeSet::new();
    for (id, object) in gone {
        if left_alone(object) {
            let message = format!("{}: disabled", meta::RECONCILE);
            decisions.items.push(report(id, object, Action::Unchanged, Some((Reason::Suspended, message))));
        } else if let Some(engine) = tracked(object) {
            let message = format!("{engine} applies it now: it is left to it");
            let why = Some((Reason::TrackedElsewhere, message));
            decisions.items.push(report(id, object, Action::Unchanged, why));
        } else if let Some(why) = in_failed_file(id, object, desired) {
            decisions.items.push(report(id, object, Action::Hold, Some(why)));
        } else {
            going.insert(id);
        }
    }
    let counted = going.iter().filter(|id| !is_prompt(id)).count();
    let total = ours().filter(|(id, _)| !is_prompt(id)).count();
    let doubt = doubt(desired, live, policy, counted, total);
    for id in &going {
        let Some(object) = live.get(id) else { continue };
        let why = doubt.clone().or_else(|| in_use(id, live, &going));
        if is_prompt(id) && (why.is_some() || prompt_in_use(id, live, &going, doubt.is_some())) {
            // a prompt stays as long as its run and is not worth a word of its own
            continue;
        }
        match (why, at(object)) {
            (None, Some(at)) => {
                let active = id.kind == Kind::HarnessRun && !phase(object).is_some_and(Phase::is_terminal);
                let started = active && phase(object).is_some();
                let action = if started { Action::Stop } else { Action::Delete };
                let why = started.then(|| {
                    (Reason::Progressing, "its file is gone: it is stopped, recorded, removed".to_owned())
                });
                decisions.items.push(report(id, object, action, why));
                decisions.deletes.push(Step::Delete { id: (*id).clone(), at });
            }
            (why, _) => decisions.items.push(report(id, object, Action::Hold, why)),
        }
    }
}

fn report(id: &ObjectId, object: &Object, action: Action, why: Option<Held>) -> ItemReport {
    let path = annotation(object, meta::SOURCE_PATH).and_then(|path| path.parse().ok());
    let item = ItemReport { path, ..ItemReport::bare(id, action) };
    match why {
        Some((reason, message)) => item.because(reason, message),
        None => item,
    }
}

/// Which other engine took over what has left our files; `None` for what we were told to take from it.
fn tracked(object: &Object) -> Option<meta::Engine> {
    let told = annotation(object, meta::ADOPT) == Some("true");
    meta::tracked_by(object.labels(), object.annotations()).filter(|_| !told)
}

/// The file that holds the object cannot be read: it may still be in there.
fn in_failed_file(id: &ObjectId, object: &Object, desired: &Desired) -> Option<Held> {
    let from = annotation(object, meta::SOURCE_PATH);
    let held = |path: &RepoPath, names: &[ObjectId]| Some(path.as_str()) == from || names.contains(id);
    let (path, _) = desired.failed.iter().find(|(path, names)| held(path, names))?;
    Some((Reason::SomeFilesFailed, format!("{path} has errors; the object stays as it is")))
}

/// What forbids every deletion of this plan.
fn doubt(desired: &Desired, live: &Live, policy: &Policy, going: usize, total: usize) -> Option<Held> {
    let known = |path: &RepoPath| {
        live.objects().any(|(_, object)| annotation(object, meta::SOURCE_PATH) == Some(path.as_str()))
    };
    // an object may have moved into a file that nobody can read
    let suspect = |path: &&RepoPath| desired.opaque.contains(*path) || !known(path);
    if let Some(path) = desired.failed.keys().find(suspect) {
        return Some((Reason::SomeFilesFailed, format!("it may have moved to {path}, which has errors")));
    }
    let Prune { enabled, max_count, max_fraction } = policy.prune;
    if !enabled {
        return Some((Reason::PruneHeld, "spec.prune.enabled is false".to_owned()));
    }
    if policy.released() {
        return None;
    }
    let release = format!("if it is meant, annotate {} with {}: <commit>", policy.source, meta::ALLOW_PRUNE);
    if desired.objects.is_empty() {
        return Some((Reason::EmptyTree, format!("the tree holds no object at all; {release}")));
    }
    if going > max_count {
        let message = format!("{going} objects would go, and at most {max_count} may; {release}");
        return Some((Reason::PruneHeld, message));
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of objects are small")]
    let share = going as f64 / total.max(1) as f64;
    if total > Prune::FRACTION_FROM && share > max_fraction {
        let message =
            format!("{going} of {total} objects would go, more than the share {max_fraction}; {release}");
        return Some((Reason::PruneHeld, message));
    }
    None
}

/// A session stays while a run of it works, unless that run goes as well.
fn in_use(id: &ObjectId, live: &Live, going: &BTreeSet<&ObjectId>) -> Option<Held> {
    if id.kind != Kind::Session {
        return None;
    }
    let of_session = |run: &ObjectId, object: &Object| {
        run.kind == Kind::HarnessRun
            && run.namespace == id.namespace
            && spec(object)
                .and_then(|s| s.pointer("/sessionRef/name"))
                .is_some_and(|name| *name == *id.name.as_str())
    };
    let active = |object: &Object| phase(object).is_some_and(|phase| !phase.is_terminal());
    let (run, _) = live
        .objects()
        .find(|(run, object)| of_session(run, object) && active(object) && !going.contains(run))?;
    Some((Reason::SessionInUse, format!("run {} is active; remove its file in the same commit", run.name)))
}

fn prompt_in_use(id: &ObjectId, live: &Live, going: &BTreeSet<&ObjectId>, all_held: bool) -> bool {
    live.objects().any(|(run, object)| {
        run.namespace == id.namespace
            && annotation(object, meta::PROMPT) == Some(id.name.as_str())
            && (all_held || !going.contains(run))
    })
}
