//! Rights: the documented ones are enough, and what is taken away is told.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;
use ostler::kinds::{Agent, EgressPolicy, Phase};
use serde_json::json;

use crate::{
    cluster::{AuditLine, shared},
    kubernetes::{
        rights::{documented, without},
        stage::{ROLE, Stage, role},
    },
    scenarios::manifests::{agent, commits, manifest, run},
};

/// `verb group/resource`, one for each right.
fn rights_of(rules: &[PolicyRule]) -> BTreeSet<String> {
    let of_rule = |rule: &PolicyRule| -> Vec<String> {
        let group = rule.api_groups.as_ref().unwrap()[0].clone();
        let resources = rule.resources.clone().unwrap();
        let of_resource = |resource: &String| -> Vec<String> {
            rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource}")).collect()
        };
        resources.iter().flat_map(of_resource).collect()
    };
    rules.iter().flat_map(of_rule).collect()
}

fn right_of(line: &AuditLine) -> String {
    let object = &line.object_ref;
    let below = if object.subresource.is_empty() { "" } else { "/" };
    format!("{} {}/{}{below}{}", line.verb, object.api_group, object.resource, object.subresource)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_documented_rights_are_enough() {
    let stage = Stage::new(shared().await, "least").await;
    let up = stage.up();
    stage.push("runs/one.yaml", &run("one", &commits("WORK", "done")));
    stage.recorded("one", Phase::Succeeded).await;
    stage.push("agents/other.yaml", &agent("other", &json!({})));
    stage.config.git(&["rm", "--quiet", "agents/other.yaml"]);
    let last = stage.push("agents/third.yaml", &agent("third", &json!({})));
    stage.in_force(&last).await;
    assert!(stage.get::<Agent>("other").await.is_none());
    let ended = up.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert!(!ended.text.contains("orbidden"), "{}", ended.text);

    let lines = stage.cluster.audit();
    let ours: Vec<&AuditLine> = lines.iter().filter(|line| line.user.username == stage.rights.user).collect();
    let refused: Vec<String> = ours.iter().filter(|line| line.code() == 403).map(|l| right_of(l)).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let used: BTreeSet<String> = ours.iter().map(|line| right_of(line)).collect();
    let given: BTreeSet<String> =
        rights_of(&role()).union(&rights_of(&documented("ClusterRole", ROLE))).cloned().collect();
    assert!(used.is_subset(&given), "{:#?}", used.difference(&given).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rights_that_are_taken_away_are_named_and_come_back() {
    let stage = Stage::new(shared().await, "taken").await;
    let first = stage.config.git(&["rev-parse", "HEAD"]);
    let up = stage.up();
    stage.in_force(&first).await;

    // all of them: not even a status can be written, so the log says it
    stage.rights.take(ROLE, &role()).await;
    stage.push("agents/second.yaml", &agent("second", &json!({})));
    let user = format!("User \"{}\" cannot", stage.rights.user);
    up.line("the round says what is missing", |line| {
        line["message"] == "round failed" && line["error"].as_str().unwrap().contains(&user)
    });
    assert!(stage.get::<Agent>("second").await.is_none());

    // one of them: what it concerns is told where people look, and the rest is applied
    let rest = without(role(), "agents");
    stage.rights.give("rest", &rest).await;
    let policy = manifest("EgressPolicy", "web", &json!({"rules": []}));
    let last = stage.push("policy.yaml", &policy);
    let said = stage.repository("the write that is refused is named", |said, _| said.contains(&user)).await;
    assert!(said.contains("second: not allowed: ") && said.contains("resource \"agents\""), "{said}");
    stage.wait::<EgressPolicy>("web", "the rest is applied", |policy| policy.is_some()).await;
    assert!(stage.get::<Agent>("second").await.is_none());

    stage.rights.give_again(ROLE, &role()).await;
    stage.in_force(&last).await;
    assert!(stage.get::<Agent>("second").await.is_some());
    assert_eq!(up.stop().code, Some(0));
}
