//! How runs in pods end: the cases of `endings.yaml`, all at once.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, Patch, PatchParams},
};
use ostler::kinds::{HarnessRun, Phase, Reason};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Enforcer, shared, stage::Stage};
use crate::scenarios::manifests;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// An agent of its own, with this in its spec.
    #[serde(default)]
    agent: Value,
    script: String,
    #[serde(default)]
    spec: Value,
    once: Option<Once>,
    ends: (String, String, Option<i64>),
    branch: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Once {
    is: (String, String),
    r#do: Deed,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Deed {
    Stop,
    Delete,
    Evict,
}

impl Case {
    fn manifest(&self) -> String {
        let mut spec = if self.spec.is_null() { json!({}) } else { self.spec.clone() };
        if !self.agent.is_null() {
            spec["agentRef"] = json!({"name": self.name});
        }
        manifests::run_with(&self.name, &self.script, &spec)
    }

    async fn goes_as_told(&self, stage: &Stage<'_>) {
        if let Some(Once { is: (phase, reason), r#do }) = &self.once {
            stage
                .until(&self.name, &format!("{} is {phase} ({reason})", self.name), |status| {
                    // What the agent wrote shows that it is at work, and the commit before it is made.
                    let begun = status.startup.as_ref().is_some_and(|time| time.first_output_ms.is_some());
                    let begun = begun || phase != "Running";
                    begun
                        && (status.phase.map(Phase::as_str), status.reason.map(Reason::as_str))
                            == (Some(phase), Some(reason))
                })
                .await;
            self.happens(r#do, stage).await;
        }
        let status = stage.until_recorded(&self.name).await;
        let (phase, reason, code) = &self.ends;
        stage.assert_end(&self.name, &status, (phase, reason, *code)).await;
        let branches = stage.code.bare_git(&["branch", "--list", &format!("ostler/*/{}", self.name)]);
        let pushed = !branches.is_empty();
        assert_eq!(pushed, self.branch.unwrap_or(pushed), "{}: the code branch", self.name);
    }

    async fn happens(&self, deed: &Deed, stage: &Stage<'_>) {
        let pods: Api<Pod> = stage.node.pods_of(&stage.namespace).await;
        let pod = stage.until_pod(&self.name).await.name_any();
        match deed {
            Deed::Stop => {
                // as a commit that says so
                let patch = Patch::Merge(json!({"spec": {"stop": true}}));
                let runs: Api<HarnessRun> = stage.runs();
                runs.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
            }
            Deed::Delete => drop(pods.delete(&pod, &DeleteParams::default()).await.unwrap()),
            Deed::Evict => drop(pods.evict(&pod, &EvictParams::default()).await.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn every_end_is_recorded_with_its_reason_and_what_the_agent_did() {
    shared().await.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("ends").await;
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("endings.yaml")).unwrap();
    let mut files = Vec::new();
    for case in &cases {
        files.push((format!("runs/{}.yaml", case.name), case.manifest()));
        if !case.agent.is_null() {
            files.push((format!("agents/{}.yaml", case.name), manifests::agent(&case.name, &case.agent)));
        }
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    stage.config.push(&files, "runs of all kinds");
    join_all(cases.iter().map(|case| case.goes_as_told(&stage))).await;
}
