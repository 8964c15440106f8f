//! The planner's rules, one case a file.
//!
//! Sections: `before/PATH` are files that were applied already, `after/PATH` those that are asked for. `live` patches what
//! the store holds: YAML documents, each `{object: Kind name, patch: …}` (a JSON merge patch; null removes the object).
//! `ledger` holds a list of entries, `policy` changes the policy.

use ostler::{
    kinds::{Kind, ObjectId},
    ledger::{Entry, View},
    manifest::Desired,
    plan::{Live, Plan, PlanReport, Policy, Prune, Step, plan},
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
