//! Rights: the documented ones are enough, none of them is idle, and what is taken away is told.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;
use ostler::kinds::{Agent, Phase};
use serde_json::json;

use crate::{
    cluster::{AuditLine, shared},
    kubernetes::{
        rights::documented,
        stage::{ROLE, Stage, role},
    },
    scenarios::manifests::{agent, commits, run},
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
    stage
        .run("one", "it is recorded", |status| {
            status.result.as_ref().is_some_and(|result| result.commit.is_some())
                && status.phase == Some(Phase::Succeeded)
        })
        .await;
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
    println!("not used here: {:#?}", given.difference(&used).collect::<Vec<_>>());
    assert!(used.is_subset(&given), "{:#?}", used.difference(&given).collect::<Vec<_>>());
}
