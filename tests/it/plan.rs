//! The planner's rules, one case a file.
//!
//! Sections: `before/PATH` are files that were applied already, `after/PATH` those that are asked for. `live` patches what
//! the store holds: YAML documents, each `{object: Kind name, patch: …}` (a JSON merge patch; null removes the object).
//! `ledger` holds a list of entries, `policy` changes the policy.

use ostler::{
    kinds::{Kind, ObjectId},
    ledger::{Entry, View},
    manifest::Desired,
    plan::{FieldChange, Live, Plan, PlanReport, Policy, Prune, Step, calls_for_plan, plan, writers},
    ports::objects,
};
use serde_json::{Value, json};

use crate::{golden, manifest::desired};

const NOW: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

fn policy(text: &str) -> Policy {
    let given: Value = serde_saphyr::from_str(text).unwrap_or_else(|_| json!({}));
    let given = if given.is_object() { given } else { json!({}) };
    let default = Prune::default();
    let number =
        |key: &str, default: usize| given[key].as_u64().map_or(default, |n| usize::try_from(n).unwrap());
    Policy {
        source: "team/agents".to_owned(),
        uid: "uid-1".parse().unwrap(),
        commit: Some("c".repeat(40).parse().unwrap()),
        prune: Prune {
            enabled: given["enabled"].as_bool().unwrap_or(true),
            max_count: number("maxCount", default.max_count),
            max_fraction: given["maxFraction"].as_f64().unwrap_or(default.max_fraction),
        },
        allow_prune: given["allowPrune"].as_str().map(|text| text.repeat(40).parse().unwrap()),
    }
}

/// Files of a section group; `*N` in a path makes N files with `*` replaced by the number, in path and text.
fn files(sections: &golden::Sections, side: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (name, text) in sections {
        let Some(path) = name.strip_prefix(side) else { continue };
        match path.split_once('*') {
            None => files.push((path.to_owned(), text.clone())),
            Some((start, rest)) => {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let end = &rest[digits.len()..];
                for n in 0..digits.parse().unwrap() {
                    files.push((format!("{start}{n}{end}"), text.replace('*', &n.to_string())));
                }
            }
        }
    }
    files
}

fn id(text: &str) -> ObjectId {
    let (kind, name) = text.split_once(' ').unwrap();
    ObjectId::new(kind.parse().unwrap(), "team".parse().unwrap(), name.parse().unwrap())
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().shift_remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn live(before: &Desired, policy: &Policy, patches: &str) -> Live {
    let mut objects: Vec<(ObjectId, Value)> = Live::assumed(before, policy)
        .objects()
        .map(|(id, object)| (id.clone(), serde_json::to_value(object).unwrap()))
        .collect();
    let patches: Vec<Value> = serde_saphyr::from_multiple(patches).unwrap();
    for patch in patches {
        let wanted = id(patch["object"].as_str().unwrap());
        if !objects.iter().any(|(id, _)| *id == wanted) {
            let metadata = json!({"name": wanted.name, "namespace": wanted.namespace, "uid": "u"});
            objects.push((wanted.clone(), json!({"metadata": metadata})));
        }
        let (_, object) = objects.iter_mut().find(|(id, _)| *id == wanted).unwrap();
        merge(object, &patch["patch"]);
    }
    objects.retain(|(_, object)| object.is_object());
    Live::new(objects.into_iter().map(|(id, object)| (id.kind, serde_json::from_value(object).unwrap())))
}

fn ledger(text: &str, before: &Desired) -> View {
    let entries: Vec<Value> = serde_saphyr::from_str(text).unwrap_or_default();
    let entry = |entry: Value| {
        let id = id(&format!("HarnessRun {}", entry["run"].as_str().unwrap()));
        let digest = before.objects.get(&id).and_then(|item| item.digest.clone());
        let outcome = entry.get("outcome").map(|outcome| serde_json::from_value(outcome.clone()).unwrap());
        let entry = Entry {
            holder: "h".to_owned(),
            run_uid: "u".parse().unwrap(),
            digest: digest.unwrap_or_default(),
            outcome,
            trusted: entry["trusted"].as_bool().unwrap_or(true),
        };
        (id.namespace, id.name, entry)
    };
    entries.into_iter().map(entry).collect()
}

fn planned(sections: &golden::Sections) -> (Desired, Plan, PlanReport) {
    let section = |name: &str| sections.iter().find(|(n, _)| n == name).map_or("", |(_, text)| text.as_str());
    let policy = policy(section("policy"));
    let (before, after) = (desired(&files(sections, "before/")), desired(&files(sections, "after/")));
    let live = live(&before, &policy, section("live"));
    let (plan, report) = plan(&after, &live, &ledger(section("ledger"), &before), &policy, NOW);
    (after, plan, report)
}

#[test]
fn every_rule_has_a_case() {
    let subject = |sections: &golden::Sections| {
        let (_, plan, report) = planned(sections);
        let steps = plan.steps.iter().map(|step| match step {
            Step::Create { id, .. } => format!("create {id}"),
            Step::Update { id, body, .. } => format!("update {id} with spec {}", body["spec"]),
            Step::Delete { id, .. } => format!("delete {id}"),
        });
        let steps: Vec<String> = steps.collect();
        assert_eq!(report.exit_code() == 0, !report.differs());
        format!("{report}exit code {}\nsteps:\n{}", report.exit_code(), steps.join("\n"))
    };
    assert!(golden::run("plan_cases", subject) >= 15);
}

/// Whether the planner would look again at an object, as a cache has it, when it stands so.
fn looks_again(written: &str, patch: &Value) -> bool {
    let policy = policy("");
    let desired = desired(&[("a.yaml".to_owned(), written.to_owned())]);
    let (id, item) = desired.objects.first_key_value().unwrap();
    let live = Live::assumed(&desired, &policy);
    let mut there = serde_json::to_value(live.get(id).unwrap()).unwrap();
    merge(&mut there, patch);
    let there = serde_json::from_value(there).unwrap();
    // the way of every object through a cache
    let there = match id.kind {
        Kind::Agent => objects::untyped(&objects::typed::<ostler::kinds::Agent>(there).unwrap()),
        Kind::HarnessRun => objects::untyped(&objects::typed::<ostler::kinds::HarnessRun>(there).unwrap()),
        other => panic!("{other}"),
    };
    calls_for_plan(id, item, Some(&there.unwrap()), &View::default(), &policy)
}

#[test]
fn a_change_of_what_was_applied_calls_for_a_plan_and_no_other_does() {
    let agent =
        "apiVersion: ostler.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {preset: pi, args: []}\n";
    let run = "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: r}\nspec: {agentRef: {name: a}, task: {prompt: p}, timeout: 90m}\n";
    let cases = [
        (agent, "nothing", json!({}), false),
        (agent, "a field", json!({"spec": {"preset": "codex"}}), true),
        (agent, "an empty list is filled", json!({"spec": {"args": ["x"]}}), true),
        (agent, "a field that nobody asked for", json!({"spec": {"command": ["x"]}}), false),
        (agent, "somebody's label", json!({"metadata": {"labels": {"team": "a"}}}), false),
        (
            agent,
            "our annotation",
            json!({"metadata": {"annotations": {"ostler.dev/source-path": "b"}}}),
            true,
        ),
        (agent, "status", json!({"status": {"observedGeneration": 3}}), false),
        (
            agent,
            "left alone",
            json!({"spec": {"preset": "codex"}, "metadata": {"annotations": {"ostler.dev/reconcile": "disabled"}}}),
            false,
        ),
        (
            agent,
            "another engine's",
            json!({"spec": {"preset": "codex"}, "metadata": {"labels": {"argocd.argoproj.io/instance": "x"}}}),
            false,
        ),
        (agent, "going", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
        (run, "a duration in other words", json!({"spec": {"timeout": "5400s"}}), false),
        (run, "another duration", json!({"spec": {"timeout": "1h"}}), true),
        (run, "its progress", json!({"status": {"phase": "Running"}}), false),
        (run, "a stop by hand", json!({"spec": {"stop": true}}), false),
    ];
    for (written, what, patch, expected) in cases {
        assert_eq!(looks_again(written, &patch), expected, "{what}");
    }
}

#[test]
fn whoever_changed_a_field_is_named() {
    let entry = |manager: &str, second: u8, subresource: Option<&str>, fields: Value| {
        json!({"manager": manager, "operation": "Update", "subresource": subresource,
            "time": format!("2026-01-01T00:00:0{second}Z"), "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    let managed = [
        entry("ostler-syncer", 1, None, json!({"f:spec": {"f:args": {}}})),
        entry("hand", 2, None, json!({"f:spec": {"f:preset": {}}})),
        entry("label", 3, None, json!({"f:metadata": {"f:labels": {".": {}, "f:a.b/c": {}}}})),
        entry("ostler-controller", 4, Some("status"), json!({"f:status": {}})),
    ];
    let object = json!({"metadata": {"name": "a", "managedFields": managed}});
    let object = serde_json::from_value(object).unwrap();
    let change = |field: &str| FieldChange { field: field.to_owned(), from: None, to: Some(json!(1)) };
    assert_eq!(writers(&object, &[change("spec.preset")]), ["hand"]);
    assert_eq!(
        writers(&object, &[change("metadata.labels.a.b/c"), change("spec.preset")]),
        ["hand", "label"]
    );
    assert_eq!(writers(&object, &[change("metadata.labels")]), ["label"], "a part of what differs");
    assert_eq!(writers(&object, &[change("spec.taken")]), ["label"], "the last one, when nobody owns it");
}

#[test]
fn what_the_syncer_makes_of_a_run_inherits_no_tracking() {
    let run = "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: r, labels: {app.kubernetes.io/instance: shop, kustomize.toolkit.fluxcd.io/name: shop}, annotations: {argocd.argoproj.io/tracking-id: x}}\nspec: {agentRef: {name: a}, task: {promptFrom: {path: p.md}}}\n";
    let files = [("r.yaml".to_owned(), run.to_owned()), ("p.md".to_owned(), "Do it.".to_owned())];
    let (first, _) = plan(&desired(&files), &Live::default(), &View::default(), &policy(""), NOW);
    let prompt = first.steps.iter().find(|step| step.id().kind == Kind::ConfigMap).unwrap();
    let Step::Create { body, .. } = prompt else { panic!("{prompt:?}") };
    assert_eq!(body["metadata"].get("labels"), None);
    let annotations = body["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.keys().all(|key| key.starts_with("ostler.dev/")), "{annotations:?}");
}

#[test]
fn planning_again_after_its_steps_plans_nothing() {
    let run = "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: r}\nspec: {agentRef: {name: a}, task: {promptFrom: {path: p.md}}}\n";
    let agent = "apiVersion: ostler.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {preset: pi}\n";
    let files = [("r.yaml", run), ("a.yaml", agent), ("p.md", "Do it.")];
    let files: Vec<_> = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let (desired, policy) = (desired(&files), policy(""));
    let (first, report) = plan(&desired, &Live::default(), &View::default(), &policy, NOW);
    let kinds: Vec<Kind> = first.steps.iter().map(|step| step.id().kind).collect();
    assert_eq!(kinds, [Kind::ConfigMap, Kind::Agent, Kind::HarnessRun]);
    assert_eq!(report.counts.create, 3);
    let bodies = first.steps.into_iter().map(|step| match step {
        Step::Create { id, mut body } => {
            body["metadata"]["uid"] = json!("u");
            body["metadata"]["managedFields"] = json!([{"manager": "ostler-syncer", "operation": "Apply"}]);
            (id.kind, serde_json::from_value(body).unwrap())
        }
        other => panic!("{other:?}"),
    });
    let later = Policy { commit: Some("d".repeat(40).parse().unwrap()), ..policy };
    let (second, report) = plan(&desired, &Live::new(bodies), &View::default(), &later, NOW);
    assert!(second.is_empty(), "{report}");
    assert_eq!((report.exit_code(), report.counts.unchanged), (0, 3), "another commit alone is no change");
}
