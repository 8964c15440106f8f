//! Whole runs in images of all kinds, and names looked up by our own program in an image that has nothing else.

use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Enforcer, Node, shared, stage::Stage};
use crate::scenarios::manifests::{manifest, run_with};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    image: Image,
    /// Of the image.
    #[serde(default)]
    configuration: Value,
    command: Vec<String>,
    /// More in the agent's spec.
    #[serde(default)]
    agent: Value,
    says: Vec<String>,
    #[serde(default)]
    never: Vec<String>,
    work: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Image {
    Bare,
    Musl,
    Busybox,
    Debian,
}

impl Case {
    async fn image(&self, node: &Node) -> String {
        let image = match self.image {
            Image::Busybox => {
                return node.busybox_image_with(&self.name, self.configuration.clone()).await;
            }
            Image::Bare => node.bare_image().await,
            Image::Musl => node.musl_image().await,
            Image::Debian => node.debian_image().await,
        };
        assert!(self.configuration.is_null(), "{}: the image is shared", self.name);
        image.to_owned()
    }

    async fn files(&self, node: &Node) -> [(String, String); 2] {
        let mut agent =
            json!({"preset": "command", "image": self.image(node).await, "command": self.command});
        for (field, value) in self.agent.as_object().into_iter().flatten() {
            agent[field] = value.clone();
        }
        let run = run_with(&self.name, "nothing", &json!({"agentRef": {"name": self.name}}));
        [
            (format!("agents/{}.yaml", self.name), manifest("Agent", &self.name, &agent)),
            (format!("runs/{}.yaml", self.name), run),
        ]
    }

    async fn goes_well(&self, stage: &Stage<'_>) {
        let name = &self.name;
        let status = stage.until_recorded(name).await;
        stage.assert_end(name, &status, ("Succeeded", "Completed", Some(0))).await;
        let output = stage.output(name);
        for line in &self.says {
            assert!(output.contains(line.as_str()), "{name} never said {line:?}: {output}");
        }
        for line in &self.never {
            assert!(!output.contains(line.as_str()), "{name} said {line:?}: {output}");
        }
        let work = format!("ostler/{}/{name}:WORK", stage.namespace);
        assert_eq!(stage.code.bare_git(&["show", &work]), self.work, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn an_agent_works_in_any_image() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("any").await;
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("agents.yaml")).unwrap();
    let mut files = Vec::new();
    for case in &cases {
        files.extend(case.files(node).await);
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    stage.config.push(&files, "runs in all images");
    join_all(cases.iter().map(|case| case.goes_well(&stage))).await;
}
