//! The same operations on the embedded store and on an API server come out the same.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use kube::ResourceExt;
use ostler::{
    embedded::objects::EmbeddedStore,
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::objects::{At, Error, Store},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use super::{ground, id, object};

const SEEDS: std::ops::Range<u64> = 0..4;
const STEPS: usize = 200;
const KINDS: [Kind; 3] = [Kind::Agent, Kind::HarnessRun, Kind::ConfigMap];
const MANAGERS: [&str; 3] = ["m1", "m2", "m3"];

#[tokio::test]
async fn random_operations_come_out_the_same() {
    let (_, api_server, _) = ground("same").await;
    let mut kept = 0;
    for seed in SEEDS {
        let (_, _, namespace) = ground("same").await;
        let folder = tempfile::tempdir().unwrap();
        let embedded: Store = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
        kept += run(seed, &namespace, [embedded, Arc::clone(&api_server)]).await;
    }
    assert!(kept > 0, "no change of a claimed run was refused, so that nothing was seen of that rule");
}

/// An operation; which state of the object it presupposes is a number in its history.
#[derive(Debug)]
enum Operation {
    Create { object: Value, manager: &'static str },
    Apply { object: Value, manager: &'static str, force: bool, at: Option<Guard> },
    Merge { at: Guard, patch: Value, manager: &'static str },
    Status { at: Guard, patch: Value, manager: &'static str },
    Delete { at: Guard },
}

#[derive(Debug, Clone, Copy)]
struct Guard {
    /// Back from the newest state that was seen.
    back: usize,
    any_version: bool,
}

/// One of the two stores, and what was seen of its objects.
struct Side {
    store: Store,
    /// The states that differ visibly: an API server may give a state that nothing changed another version.
    seen: BTreeMap<ObjectId, Vec<(Value, At)>>,
}

impl Side {
    fn at(&self, id: &ObjectId, guard: Guard) -> At {
        let seen = self.seen.get(id).map_or(&[][..], Vec::as_slice);
        let unseen =
            || At { uid: "00000000-0000-4000-8000-000000000000".parse().unwrap(), resource_version: None };
        let at = seen.len().checked_sub(1 + guard.back).map_or_else(unseen, |index| seen[index].1.clone());
        if guard.any_version { at.any_version() } else { at }
    }

    /// Does it, and says what came of it and what is there now, in words that are the same for both.
    async fn perform(&mut self, id: &ObjectId, operation: &Operation) -> Value {
        let done = match operation {
            Operation::Create { object: body, manager } => {
                self.store.create(&object(body.clone()), manager).await.map(Some)
            }
            Operation::Apply { object: body, manager, force, at } => {
                let at = at.map(|at| self.at(id, at));
                self.store.apply(&object(body.clone()), manager, *force, at.as_ref()).await.map(Some)
            }
            Operation::Merge { at, patch, manager } => {
                self.store.merge(id, &self.at(id, *at), patch, manager).await.map(Some)
            }
            Operation::Status { at, patch, manager } => {
                self.store.write_status(id, &self.at(id, *at), patch, manager).await.map(Some)
            }
            Operation::Delete { at } => self.store.delete(id, &self.at(id, *at)).await.map(|()| None),
        };
        let now = self.store.get(id).await.unwrap();
        let seen = self.seen.entry(id.clone()).or_default();
        if let Some(object) = &now {
            seen.pop_if(|(last, _)| *last == visible(object));
            seen.push((visible(object), At::of(object).unwrap()));
        }
        let answer = match done {
            Ok(object) => object.map_or_else(|| json!("done"), |object| visible(&object)),
            Err(error) => json!(word(&error)),
        };
        json!({"answer": answer, "now": now.as_ref().map(visible)})
    }
}

/// Gives how many changes of claimed runs were refused.
async fn run(seed: u64, namespace: &Namespace, stores: [Store; 2]) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sides = stores.map(|store| Side { store, seen: BTreeMap::new() });
    let (mut history, mut kept) = (String::new(), 0);
    for step in 0..STEPS {
        let kind = *KINDS.choose(&mut random).unwrap();
        let id = id(kind, namespace, &format!("o{}", random.random_range(0..2)));
        let operation = operation(&mut random, &id);
        writeln!(history, "{step}: {id}: {operation:?}").unwrap();
        let [embedded, api_server] = &mut sides;
        let (left, right) =
            (embedded.perform(&id, &operation).await, api_server.perform(&id, &operation).await);
        assert!(
            left == right || are_two_reasons(&left, &right),
            "seed {seed} step {step}: {id}: {operation:?}\nembedded:   {left}\nAPI server: {right}\nhistory:\n{}",
            history
                .lines()
                .rev()
                .filter(|line| line.contains(&format!(" {id}:")))
                .take(12)
                .collect::<Vec<_>>()
                .join("\n")
        );
        let claimed = left["now"]["status"]["claim"].is_object() && left["answer"] == "invalid";
        kept +=
            usize::from(claimed && matches!(operation, Operation::Merge { .. } | Operation::Apply { .. }));
    }
    for kind in KINDS {
        let mut lists = Vec::new();
        for side in &sides {
            let listed = side.store.list(kind, Some(namespace)).await.unwrap();
            lists.push(listed.iter().map(visible).collect::<Vec<_>>());
        }
        assert_eq!(lists[0], lists[1], "seed {seed}");
    }
    kept
}

/// Known to differ: of several reasons to refuse an apply, which one is told.
fn are_two_reasons(left: &Value, right: &Value) -> bool {
    left["now"] == right["now"] && left["answer"] == "conflict" && right["answer"] == "invalid"
}

fn operation(random: &mut StdRng, id: &ObjectId) -> Operation {
    let manager = MANAGERS.choose(random).unwrap();
    let guard = Guard {
        back: if random.random_bool(0.8) { 0 } else { random.random_range(1..4) },
        any_version: random.random_bool(0.5),
    };
    match random.random_range(0..12) {
        0..=1 => Operation::Create { object: whole(random, id), manager },
        2..=5 => {
            let at = random.random_bool(0.3).then_some(guard);
            let mut object = whole(random, id);
            // known to differ: they are a set to an apply
            object["metadata"].as_object_mut().unwrap().shift_remove("finalizers");
            Operation::Apply { object, manager, force: random.random_bool(0.5), at }
        }
        6..=8 => Operation::Merge { at: guard, patch: patch(random, id.kind), manager },
        // a ConfigMap has none
        9..=10 if id.kind != Kind::ConfigMap => {
            Operation::Status { at: guard, patch: status(random, id.kind), manager }
        }
        _ => Operation::Delete { at: guard },
    }
}

fn whole(random: &mut StdRng, id: &ObjectId) -> Value {
    let types = id.kind.api_resource();
    let mut body = json!({"apiVersion": types.api_version, "kind": types.kind});
    let part = patch(random, id.kind);
    for (name, value) in part.as_object().unwrap() {
        body[name] = value.clone();
    }
    strip_nulls(&mut body);
    match id.kind {
        Kind::Agent if body.get("spec").is_none() => body["spec"] = json!({"preset": "codex"}),
        Kind::HarnessRun if body.get("spec").is_none() => {
            body["spec"] = json!({"sessionRef": {"name": "s1"}});
        }
        _ => {}
    }
    body["metadata"]["name"] = json!(id.name);
    body["metadata"]["namespace"] = json!(id.namespace);
    body
}

/// Takes out nulls, and maps that become empty by that: known to differ.
fn strip_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(strip_nulls);
        fields.retain(|_, value| !value.is_null() && *value != json!({}));
    }
}

/// Some fields, most of them good.
fn patch(random: &mut StdRng, kind: Kind) -> Value {
    let mut patch = json!({});
    let mut set = |random: &mut StdRng, chance: f64, path: &[&str], values: &[Value]| {
        if random.random_bool(chance) {
            let mut at = &mut patch;
            for part in path {
                at = &mut at[*part];
            }
            *at = values.choose(random).unwrap().clone();
        }
    };
    for label in ["a", "b"] {
        set(random, 0.2, &["metadata", "labels", label], &[json!("1"), json!("2"), Value::Null]);
        set(random, 0.1, &["metadata", "annotations", label], &[json!("1"), json!("some text"), Value::Null]);
    }
    set(random, 0.03, &["metadata", "labels", "bad key!"], &[json!("1")]);
    let finalizers =
        [json!(["ostler.dev/x"]), json!(["ostler.dev/x", "ostler.dev/y"]), json!([]), Value::Null];
    set(random, 0.2, &["metadata", "finalizers"], &finalizers);
    if kind == Kind::ConfigMap {
        for key in ["k", "l"] {
            set(random, 0.4, &["data", key], &[json!("1"), json!("2"), json!(""), Value::Null]);
        }
        set(random, 0.03, &["data", "bad/key"], &[json!("1")]);
        set(random, 0.03, &["immutable"], &[json!(true), json!(false), Value::Null]);
        return patch;
    }
    set(random, 0.3, &["spec", "args"], &[json!(["x"]), json!(["x", "y"]), json!([]), Value::Null]);
    set(random, 0.03, &["spec", "args"], &[json!("not a list"), json!([1])]);
    set(random, 0.2, &["spec", "timeout"], &[json!("5m"), json!("1h"), Value::Null]);
    set(random, 0.03, &["spec", "timeout"], &[json!("soon"), json!(5)]);
    if kind == Kind::HarnessRun {
        set(random, 0.5, &["spec", "sessionRef", "name"], &[json!("s1"), json!("s2")]);
        set(random, 0.05, &["spec", "sessionRef"], &[Value::Null]);
        set(random, 0.5, &["spec", "task", "prompt"], &[json!("p"), json!("q"), Value::Null]);
        set(random, 0.3, &["spec", "stop"], &[json!(true), json!(false), Value::Null]);
        let seconds = [json!(0), json!(60), Value::Null, json!(-5)];
        set(random, 0.2, &["spec", "ttlSecondsAfterFinished"], &seconds);
        return patch;
    }
    let preset = [json!("codex"), json!("codex"), json!("claude-code")];
    set(random, 0.8, &["spec", "preset"], &preset);
    set(random, 0.04, &["spec", "preset"], &[json!("nonsense"), json!("command"), Value::Null]);
    set(random, 0.4, &["spec", "image"], &[json!("i1"), json!("i2"), Value::Null]);
    set(random, 0.3, &["spec", "model", "id"], &[json!("m1"), json!("m2"), Value::Null]);
    let urls = [json!("https://m.example.com"), json!("https://n.example.com"), Value::Null];
    set(random, 0.2, &["spec", "model", "baseUrl"], &urls);
    patch
}

fn status(random: &mut StdRng, kind: Kind) -> Value {
    let condition = |status: &str| {
        json!([{"type": "Ready", "status": status, "reason": "Ok", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    };
    let patches = [
        json!({}),
        json!({"observedGeneration": random.random_range(0..3)}),
        json!({"observedGeneration": null}),
        json!({"observedGeneration": "one"}),
        json!({"conditions": condition("True")}),
        json!({"conditions": condition("False"), "observedGeneration": 1}),
        json!({"conditions": null}),
        json!({"conditions": []}),
    ];
    let of_a_run = [
        json!({"claim": {"requestedAt": "2026-01-01T00:00:00Z"}}),
        json!({"claim": {"holder": "h"}}),
        json!({"claim": null}),
        json!({"phase": "Queued"}),
        json!({"phase": "Running", "reason": "AgentRunning"}),
        json!({"phase": "Succeeded", "reason": "Completed", "exitCode": 0}),
        json!({"phase": "Failed", "reason": "NonZeroExit", "exitCode": 3}),
        json!({"phase": null}),
        json!({"phase": "Nonsense"}),
    ];
    let all = if kind == Kind::HarnessRun { [&patches[..], &of_a_run].concat() } else { patches.to_vec() };
    all.choose(random).unwrap().clone()
}

/// What both must show the same: all but identities, versions and times.
fn visible(object: &Object) -> Value {
    let mut object_of = serde_json::to_value(object).unwrap();
    let metadata = object_of["metadata"].as_object_mut().unwrap();
    for own in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(metadata.shift_remove(own).is_some(), "{own} is missing: {}", object.name_any());
    }
    // who owns what is part of the contract; here its residues differ, see known-differences.yaml
    metadata.shift_remove("managedFields");
    if let Some(deleted) = metadata.get_mut("deletionTimestamp") {
        *deleted = json!("set");
    }
    object_of
}

/// The kind of an error; the texts are each store's own.
fn word(error: &Error) -> &'static str {
    match error {
        Error::NotFound(_) => "not found",
        Error::AlreadyExists(_) => "already exists",
        Error::Conflict { .. } => "conflict",
        Error::Invalid { .. } => "invalid",
        Error::Forbidden(_) => "forbidden",
        Error::Malformed { .. } => "malformed",
        Error::Expired => "expired",
        Error::NoSuchPage => "no such page",
        Error::Unavailable(_) => "unavailable",
    }
}
