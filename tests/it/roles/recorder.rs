//! The recorder: claims and results of runs in pods, over TLS, with tokens that belong to pods.

use std::{path::PathBuf, process::Command};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use ostler::{
    kinds::{
        HarnessRun,
        condition::{self, types},
    },
    kubernetes::workloads::pod_name,
    ledger::{File, RunName},
    ports::workloads::RunKey,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::stage::{Stage, address, signing_key};
use crate::{cluster::eventually, scenarios::up::Up};

const LEASE: &str = "ostler-recorder";

/// A stage with a key and a certificate.
struct Recording {
    stage: Stage,
    key: PathBuf,
    certificate: String,
}

impl Recording {
    async fn new(prefix: &str) -> Self {
        let stage = Stage::new(prefix).await;
        let (key, _) = signing_key(stage.folder.path());
        let mut recording = Self { stage, key, certificate: String::new() };
        recording.new_certificate();
        recording
    }

    /// Writes another certificate, of another authority, and its key; trusts only that.
    fn new_certificate(&mut self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        self.certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(self.stage.path("tls.crt"), &self.certificate).unwrap();
        std::fs::write(self.stage.path("tls.key"), key.serialize_pem()).unwrap();
    }

    fn command(&self, who: &str) -> Command {
        let mut command = self.stage.role("recorder", who);
        command
            .args(["--listen", "127.0.0.1:0", "--signing-key"])
            .arg(&self.key)
            .arg("--tls-cert")
            .arg(self.stage.path("tls.crt"))
            .arg("--tls-key")
            .arg(self.stage.path("tls.key"));
        command
    }

    fn start(&self, who: &str) -> Up {
        Up::start(self.command(who))
    }

    /// A client that trusts the certificate of now and keeps no connection.
    fn web(&self) -> reqwest::Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let trusted = reqwest::Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([trusted]).pool_max_idle_per_host(0).build().unwrap()
    }

    async fn run(&self, name: &str) -> HarnessRun {
        self.stage.create(name, json!({"command": ["true"]})).await
    }

    async fn status(&self, name: &str, status: Value) -> HarnessRun {
        let patch = Patch::Merge(json!({ "status": status }));
        self.stage.api::<HarnessRun>().patch_status(name, &PatchParams::default(), &patch).await.unwrap()
    }

    async fn until(&self, name: &str, what: &str, good: impl Fn(&HarnessRun) -> bool) -> HarnessRun {
        let api = self.stage.api::<HarnessRun>();
        eventually(what, async || Some(api.get(name).await.unwrap()).filter(|run| good(run))).await
    }

    /// A pod, as far as an API server alone knows one.
    async fn pod(&self, name: &str) -> Pod {
        let pod =
            json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "agent", "image": "none"}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.stage.api().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// A token of the namespace's account, bound to a pod or to nothing.
    async fn token(&self, audience: &str, pod: Option<&Pod>) -> String {
        let bound = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            uid: pod.uid(),
        });
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: bound,
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = self.stage.api::<ServiceAccount>();
        let answer = accounts.create_token_request("default", &PostParams::default(), &request).await;
        answer.unwrap().status.unwrap().token
    }

    /// Hands a result in, at the path of a run.
    async fn put(&self, recorder: &str, path: &str, token: &str, run: &HarnessRun) -> StatusCode {
        let url = format!("{recorder}/api/v1/runs/{}/{path}/result", self.stage.namespace);
        let request = self.web().put(url).bearer_auth(token).body(self.result(run));
        request.send().await.unwrap().status()
    }

    fn result(&self, run: &HarnessRun) -> Vec<u8> {
        let report = json!({
            "run": {"namespace": self.stage.namespace, "name": run.name_any(), "uid": run.uid()},
            "place": "p", "digest": "v1:aa", "end": {"exited": {"code": 0}},
            "record": {"verdict": null, "summary": "did it", "usage": null, "session": null},
            "startedAt": jiff::Timestamp::now(), "endedAt": jiff::Timestamp::now(), "startup": {},
            "egressProof": null, "egress": {"allowed": 0, "denied": 0}, "limitsNotEnforced": [], "notes": [],
            "artifacts": [],
            "changes": {"base": null, "head": null, "commits": 0, "files": 0, "additions": 0, "deletions": 0}
        })
        .to_string();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(report.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, "report.json", report.as_bytes()).unwrap();
        tar.into_inner().unwrap()
    }
}

fn asks() -> Value {
    json!({"phase": "Queued", "digest": "v1:aa", "claim": {"requestedAt": "2026-11-21T10:00:00Z"}})
}

fn placed(pod: &Pod) -> Value {
    json!({"phase": "Running", "place": {"uid": pod.uid(), "name": pod.name_any()}})
}

fn is_claimed(run: &HarnessRun) -> bool {
    run.status.as_ref().and_then(|s| s.claim.as_ref()).is_some_and(|claim| claim.commit.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_claimed_and_only_its_own_pod_hands_its_result_in() {
    let mut world = Recording::new("record").await;
    let repository = world.stage.follow(json!({})).await;
    let recorder = world.start("first");
    let url = address(&recorder, "listening");
    let run = world.run("fix").await;
    world.status("fix", asks()).await;
    let claimed = world.until("fix", "the run is claimed", is_claimed).await;
    let holder = claimed.status.unwrap().claim.unwrap().holder;
    assert_eq!(holder, repository.uid(), "the control plane is the repository's object");

    let key = RunKey {
        namespace: world.stage.namespace.parse().unwrap(),
        name: "fix".parse().unwrap(),
        uid: run.uid().unwrap().parse().unwrap(),
    };
    let (pod, other) = (world.pod(&pod_name(&key)).await, world.pod("another").await);
    let good = world.token("ostler-result", Some(&pod)).await;
    assert_eq!(world.put(&url, "fix", &good, &run).await, 503, "nobody says yet that the pod is its place");
    world.status("fix", placed(&pod)).await;
    eventually("the recorder has heard of the place", async || {
        let answer = world.put(&url, "other", &good, &run).await;
        assert!(matches!(answer.as_u16(), 404 | 503), "{answer}");
        (answer == 404).then_some(())
    })
    .await;
    for (token, path, expected, why) in [
        (world.token("ostler-result", Some(&other)).await, "fix", 401, "a pod that is no place"),
        (world.token("ostler-result", None).await, "fix", 401, "the account, but no pod"),
        (world.token("ostler", Some(&pod)).await, "fix", 401, "a token for somebody else"),
        ("nonsense".to_owned(), "fix", 401, "no token"),
        (good.clone(), "other", 404, "another run"),
    ] {
        assert_eq!(world.put(&url, path, &token, &run).await, expected, "{why}");
    }
    let stranger: HarnessRun = world.run("stranger").await;
    assert_eq!(world.put(&url, "fix", &good, &stranger).await, 409, "a report of another run");

    eventually("the result is recorded", async || {
        let answer = world.put(&url, "fix", &good, &run).await;
        assert!(matches!(answer.as_u16(), 200 | 202), "{answer}");
        (answer == 200).then_some(())
    })
    .await;
    let status = world.until("fix", "its status says so", |run| {
        run.status.as_ref().is_some_and(|s| s.result.as_ref().is_some_and(|result| result.commit.is_some()))
    });
    let status = status.await.status.unwrap();
    assert!(condition::is_true(&status.conditions, types::RESULT_RECORDED));
    let name = RunName::new(world.stage.namespace.parse().unwrap(), "fix".parse().unwrap());
    let entry =
        world.stage.config.bare_git(&["show", &format!("ostler/results:{}", name.path(File::Result))]);
    assert!(entry.contains(&holder.unwrap()), "{entry}");

    // A renewed certificate is used without a restart.
    world.new_certificate();
    eventually("the new certificate is served", async || {
        world.web().get(format!("{url}/nothing")).send().await.ok()
    })
    .await;
    assert_eq!(world.put(&url, "fix", &good, &run).await, 200, "the same again is acknowledged again");
    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_eq!(world.stage.holder(LEASE).await, None, "the lease is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_recorder_that_leads_is_ready_and_the_next_one_goes_on() {
    let world = Recording::new("records").await;
    world.stage.follow(json!({})).await;
    let first = world.start("first");
    first.line("it leads", |line| line["what"] == "leading");
    let second = world.start("second");
    second.line("it stands by", |line| line["what"] == "standby");
    let ready = async |up: &Up| {
        reqwest::get(format!("{}/readyz", address(up, "health"))).await.unwrap().status().as_u16()
    };
    eventually("the first one is ready", async || (ready(&first).await == 200).then_some(())).await;
    assert_eq!(ready(&second).await, 503);
    assert_eq!(reqwest::get(format!("{}/healthz", address(&second, "health"))).await.unwrap().status(), 200);
    assert_eq!(first.stop().code, Some(0));
    eventually("the second one is ready", async || (ready(&second).await == 200).then_some(())).await;
    world.run("next").await;
    world.status("next", asks()).await;
    world.until("next", "the second one claims", is_claimed).await;
    assert_eq!(second.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_certificate_leaves_the_former_one_in_force() {
    let world = Recording::new("cert").await;
    let recorder = world.start("first");
    let url = address(&recorder, "listening");
    let answer = async || world.web().get(format!("{url}/nothing")).send().await.unwrap().status();
    assert_eq!(answer().await, 404);
    std::fs::write(world.stage.path("tls.crt"), "not a certificate").unwrap();
    assert_eq!(answer().await, 404);
    assert_eq!(recorder.stop().code, Some(0));

    let refused = Up::start(world.command("second")).end();
    assert_eq!(refused.code, Some(2), "{}", refused.text);
    assert!(refused.text.contains("tls.crt"), "{}", refused.text);
    assert_eq!(world.stage.holder(LEASE).await, None, "who cannot begin keeps nobody waiting");
}
