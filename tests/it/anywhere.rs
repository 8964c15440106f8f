//! The suite for any cluster: ostler as a user installs it, by Helm and `docs/install.md`, with its roles in pods and the
//! rights of the chart, and runs beside it. It needs nothing of the cluster but nodes, two images and a network plugin that
//! enforces policies; the machine of the tests speaks to the API server only.
//!
//! `make test-cluster` runs it on the cluster of a kubeconfig ([`mod@cluster`]), `make test-node` on our own node
//! (`tests/it/node/anywhere.rs`). What is made has names of its own and is taken away, but for the CRDs, which Helm keeps.

mod cluster;
mod git;
mod scenarios;
mod site;
mod table;
mod tools;

use std::path::PathBuf;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub(crate) use self::{
    scenarios::{
        a_run_outlives_its_controller_and_recorder, a_run_reaches_what_it_may, a_stop_is_a_commit,
        ended_on_ostler, everything_is_in_pods, on_ostler,
    },
    table::policies_hold,
};
use crate::report::Scenario;

/// A cluster, and what the suite needs to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) kubeconfig: PathBuf,
    /// The image of ostler: `NAME:TAG`, or `NAME@sha256:…`.
    pub(crate) ostler: String,
    /// An image with git and a shell, for agents and servers.
    pub(crate) agent: String,
    /// When images are pulled, as pods say it.
    pub(crate) pull_policy: String,
    /// More values for the chart: a file.
    pub(crate) values: Option<PathBuf>,
    /// What the report calls it.
    pub(crate) engine: &'static str,
}

impl Ground {
    /// The cluster that the environment names.
    ///
    /// # Errors
    /// With what is missing or not usable.
    pub(crate) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let needed = |name: &str, what: &str| {
            given(name).ok_or_else(|| {
                format!("{name} is not set: {what}. usage: make test-cluster KUBECONFIG=FILE OSTLER_IMAGE=NAME:TAG OSTLER_TEST_AGENT_IMAGE=NAME:TAG")
            })
        };
        let file = |name: &str, path: String| {
            let path = PathBuf::from(path);
            if path.is_file() {
                Ok(path)
            } else {
                Err(format!("{name}: there is no file {}", path.display()))
            }
        };
        let kubeconfig = needed("KUBECONFIG", "the kubeconfig of a cluster whose administrator you are")?;
        let pull_policy = given("OSTLER_TEST_PULL_POLICY").unwrap_or_else(|| "IfNotPresent".to_owned());
        if !["Always", "IfNotPresent", "Never"].contains(&pull_policy.as_str()) {
            return Err(format!("OSTLER_TEST_PULL_POLICY is {pull_policy:?}: Always, IfNotPresent or Never"));
        }
        Ok(Self {
            kubeconfig: file("KUBECONFIG", kubeconfig)?,
            ostler: needed("OSTLER_IMAGE", "the image of ostler, which its nodes have or can pull")?,
            agent: needed("OSTLER_TEST_AGENT_IMAGE", "any image with git and a shell, as Debian's with git")?,
            pull_policy,
            values: given("OSTLER_TEST_VALUES").map(|path| file("OSTLER_TEST_VALUES", path)).transpose()?,
            engine: "cluster",
        })
    }

    /// Its administrator.
    pub(crate) async fn client(&self) -> Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// The test of this thread, for the report.
    pub(crate) async fn reported(&self) -> Scenario {
        let version = self.client().await.apiserver_version().await.unwrap();
        Scenario::begin(self.engine, version.git_version)
    }
}

#[test]
fn what_is_missing_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let all = [("KUBECONFIG", path), ("OSTLER_IMAGE", "a:1"), ("OSTLER_TEST_AGENT_IMAGE", "b:1")];
    let with = |change: &[(&str, &str)]| {
        Ground::of_environment(|name| {
            let given = change.iter().chain(&all).find(|(known, _)| *known == name);
            given.map(|(_, value)| (*value).to_owned())
        })
    };
    let ground = with(&[]).unwrap();
    assert_eq!((ground.ostler.as_str(), ground.agent.as_str(), ground.engine), ("a:1", "b:1", "cluster"));
    for (name, _) in all {
        let said = with(&[(name, "")]).unwrap_err();
        assert!(
            said.starts_with(&format!("{name} is not set: ")) && said.contains("make test-cluster"),
            "{said}"
        );
    }
    for (name, value) in [
        ("KUBECONFIG", "/no/such/file"),
        ("OSTLER_TEST_VALUES", "/no/such/file"),
        ("OSTLER_TEST_PULL_POLICY", "Perhaps"),
    ] {
        let said = with(&[(name, value)]).unwrap_err();
        assert!(said.starts_with(name) && said.contains(value), "{said}");
    }
}
