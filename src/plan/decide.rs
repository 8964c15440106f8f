//! What happens to the objects that are asked for.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    Action, Decisions, ItemReport, Live, Policy, Step, difference,
    live::{annotation, at, is_claimed, left_alone, phase, spec},
};
use crate::{
    kinds::{Kind, Object, ObjectId, Phase, Reason, meta},
    ledger::{self, digest},
    manifest::{Code, Desired, Item},
};

/// The body of a server-side apply: what authors wrote and where it comes from.
pub(super) fn body(item: &Item, policy: &Policy) -> Value {
    let mut body = item.value().clone();
    let mut annotations = body.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
    annotations[meta::SOURCE] = policy.source.as_str().into();
    annotations[meta::SOURCE_UID] = policy.uid.as_str().into();
    annotations[meta::SOURCE_PATH] = item.path.as_str().into();
    if let Some(commit) = &policy.commit {
        annotations[meta::SOURCE_COMMIT] = commit.as_str().into();
    }
    if let Some(digest) = &item.digest {
        annotations[meta::DIGEST] = digest.as_str().into();
    }
    if let Some(prompt) = &item.prompt {
        annotations[meta::PROMPT] = prompt.as_str().into();
    }
    body["metadata"]["annotations"] = annotations;
    body
}

/// Decides on every object of `desired`.
pub(super) fn wanted(desired: &Desired, live: &Live, ledger: &ledger::View, policy: &Policy) -> Decisions {
    let mut decisions = Decisions::default();
    let recorded = |id: &ObjectId| is_recorded(id, live, ledger);
    let needed = prompts_needed(desired, &recorded);
    for (id, item) in &desired.objects {
        let there = live.get(id);
        if there.is_some() || !is_prompt(id) || needed.contains(id) {
            one(id, item, there, ledger, policy, &mut decisions);
        }
    }
    decisions
}

/// Decides on one object.
pub(super) fn one(
    id: &ObjectId,
    item: &Item,
    there: Option<&Object>,
    ledger: &ledger::View,
    policy: &Policy,
    decisions: &mut Decisions,
) {
    let entry = if id.kind == Kind::HarnessRun { ledger.entry(&id.namespace, &id.name) } else { None };
    match there {
        Some(there) => present(id, item, there, entry, policy, decisions),
        None => absent(id, item, entry, policy, decisions),
    }
}

/// A run that is not there although its result is in the ledger was removed after its end and is not brought back.
fn is_recorded(id: &ObjectId, live: &Live, ledger: &ledger::View) -> bool {
    let done = |entry: &ledger::Entry| entry.trusted && entry.outcome.is_some();
    id.kind == Kind::HarnessRun
        && live.get(id).is_none()
        && ledger.entry(&id.namespace, &id.name).is_some_and(done)
}

/// True for the ConfigMap of a prompt file.
pub(super) fn is_prompt(id: &ObjectId) -> bool {
    id.kind == Kind::ConfigMap && id.name.as_str().starts_with(crate::manifest::PROMPT_PREFIX)
}

fn prompts_needed(desired: &Desired, recorded: &impl Fn(&ObjectId) -> bool) -> BTreeSet<ObjectId> {
    let runs = desired.objects.iter().filter(|(id, _)| !recorded(id));
    runs.filter_map(|(id, item)| {
        let name = item.prompt.clone()?;
        Some(ObjectId::new(Kind::ConfigMap, id.namespace.clone(), name))
    })
    .collect()
}

fn absent(
    id: &ObjectId,
    item: &Item,
    entry: Option<&ledger::Entry>,
    policy: &Policy,
    decisions: &mut Decisions,
) {
    if let Some(entry) = entry.filter(|entry| entry.trusted) {
        if item.digest.as_ref() != Some(&entry.digest) {
            decisions.diagnostics.push(changed_after_run(id, item));
        }
        if let Some(outcome) = entry.outcome {
            let message = format!("has run before: {outcome}; a new run needs a new name");
            decisions
                .items
                .push(ItemReport::of(id, item, Action::Recorded).because(Reason::Recorded, message));
            return;
        }
    }
    // a claim without result is created: its controller says whose it is, and starts nothing
    decisions.items.push(ItemReport::of(id, item, Action::Create));
    decisions.applies.push(Step::Create { id: id.clone(), body: body(item, policy) });
}

fn present(
    id: &ObjectId,
    item: &Item,
    there: &Object,
    entry: Option<&ledger::Entry>,
    policy: &Policy,
    decisions: &mut Decisions,
) {
    let told =
        |action, reason, message: &str| ItemReport::of(id, item, action).because(reason, message.to_owned());
    if there.metadata.deletion_timestamp.is_some() {
        let message = "it is being deleted, and made again when it is gone";
        decisions.items.push(told(Action::Hold, Reason::Progressing, message));
        return;
    }
    if let Some((reason, message)) = foreign(item, there, policy) {
        decisions.items.push(told(Action::Refuse, reason, &message));
        return;
    }
    if left_alone(there) && authored(item, "annotations", meta::RECONCILE).is_none() {
        let message = format!("{}: disabled", meta::RECONCILE);
        decisions.items.push(told(Action::Unchanged, Reason::Suspended, &message));
        return;
    }
    let mut body = body(item, policy);
    if id.kind == Kind::HarnessRun && (entry.is_some() || is_claimed(there)) && changed(item, there, entry) {
        decisions.diagnostics.push(changed_after_run(id, item));
        body = only_changeable(there, item, body);
    }
    let changes = difference::between(there, &body);
    match at(there) {
        Some(at) if !changes.is_empty() => {
            let stops = id.kind == Kind::HarnessRun
                && changes.iter().any(|change| change.field == "spec.stop" && change.to == Some(true.into()))
                && !phase(there).is_some_and(Phase::is_terminal);
            let action = if stops { Action::Stop } else { Action::Update };
            decisions.items.push(ItemReport { changes, ..ItemReport::of(id, item, action) });
            if there.finalizers().iter().any(|one| one == meta::RECORD_FINALIZER) {
                // what we applied with it would lose it
                hold(&mut body);
            }
            decisions.applies.push(Step::Update { id: id.clone(), body, at });
        }
        _ => decisions.items.push(ItemReport::of(id, item, Action::Unchanged)),
    }
}

/// Adds the finalizer of runs to the body of an apply.
///
/// No plan shows it: it is its controller's, and comes in the syncer's write to save one.
pub fn hold(body: &mut Value) {
    let list = &mut body["metadata"]["finalizers"];
    if !list.is_array() {
        *list = json!([]);
    }
    let held = Value::from(meta::RECORD_FINALIZER);
    if let Some(list) = list.as_array_mut().filter(|list| !list.contains(&held)) {
        list.push(held);
    }
}

/// Why the object is not ours to change; `None` when it is.
fn foreign(item: &Item, there: &Object, policy: &Policy) -> Option<(Reason, String)> {
    let key = meta::SOURCE;
    let adopt = authored(item, "annotations", meta::ADOPT).is_some_and(|told| *told == "true");
    let source = annotation(there, meta::SOURCE);
    let ours = annotation(there, meta::SOURCE_UID) == Some(policy.uid.as_str())
        || source == Some(policy.source.as_str());
    if let (Some(other), false) = (source, ours) {
        let message =
            format!("it belongs to {other}: remove it there, or annotate it {key}={}", policy.source);
        return Some((Reason::Contested, message));
    }
    if adopt {
        return None;
    }
    if let Some(engine) = tracked(item, there) {
        let told = meta::ADOPT;
        let message =
            format!("{engine} applies it: remove it there, or annotate it {told}=true in this file");
        return Some((Reason::TrackedElsewhere, message));
    }
    (!ours).then(|| {
        let message =
            format!("it was made by somebody else: to hand it over, annotate it {key}={}", policy.source);
        (Reason::Contested, message)
    })
}

/// Which other engine tracks the object. What the author himself wrote is no sign of one.
fn tracked(item: &Item, there: &Object) -> Option<meta::Engine> {
    let added = |of: &'static str, all: &BTreeMap<String, String>| {
        let added = all.iter().filter(|(key, value)| authored(item, of, key).is_none_or(|own| own != *value));
        added.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    meta::tracked_by(&added("labels", there.labels()), &added("annotations", there.annotations()))
}

/// A label or annotation as its author wrote it.
fn authored<'a>(item: &'a Item, of: &str, key: &str) -> Option<&'a Value> {
    item.value().get("metadata")?.get(of)?.get(key)
}

/// True when a claimed run is not what was claimed.
fn changed(item: &Item, there: &Object, entry: Option<&ledger::Entry>) -> bool {
    let claimed = entry.filter(|entry| entry.trusted).map(|entry| entry.digest.as_str());
    let claimed = claimed.or_else(|| there.data.pointer("/status/digest").and_then(Value::as_str));
    let claimed = claimed.or_else(|| annotation(there, meta::DIGEST));
    claimed.is_some_and(|claimed| item.digest.as_deref() != Some(claimed))
}

fn changed_after_run(id: &ObjectId, item: &Item) -> crate::manifest::Diagnostic {
    let message =
        format!("{id} was claimed with another spec, and nothing starts again: write a run with a new name");
    item.tell(Code::SpecChangedAfterRun, message)
}

/// The object as it is, with the two fields that may still change.
fn only_changeable(there: &Object, item: &Item, mut body: Value) -> Value {
    let mut kept = spec(there).cloned().unwrap_or_else(|| json!({}));
    for field in digest::CHANGEABLE {
        match item.value().get("spec").and_then(|spec| spec.get(field)) {
            Some(value) => kept[field] = value.clone(),
            None => {
                kept.as_object_mut().map(|kept| kept.shift_remove(field));
            }
        }
    }
    body["spec"] = kept;
    for key in [meta::DIGEST, meta::PROMPT] {
        let Some(Value::Object(annotations)) = body.pointer_mut("/metadata/annotations") else { continue };
        match there.annotations().get(key) {
            Some(value) => annotations.insert(key.to_owned(), value.as_str().into()),
            None => annotations.shift_remove(key),
        };
    }
    body
}
