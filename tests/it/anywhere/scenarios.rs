//! What ostler does in any cluster.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use ostler::kinds::{Phase, Reason, harness_run::HarnessRunStatus};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Ground, site::Site, tools::phase};
use crate::{
    cluster::{Container, eventually, exec},
    node::{address_of, restricted_container, restricted_pod},
    scenarios::manifests::{self, commits},
};

/// What a scenario panicked with.
type Why = Box<dyn std::any::Any + Send>;

/// Installs ostler, does that, and takes everything away again, whatever happened.
pub(crate) async fn on_ostler(ground: Ground, scenario: impl AsyncFnOnce(&Site)) {
    let _reported = ground.reported().await;
    if let Err(why) = ended_on_ostler(ground, scenario).await {
        resume_unwind(why);
    }
}

/// The same; gives what the scenario panicked with.
pub(crate) async fn ended_on_ostler(ground: Ground, scenario: impl AsyncFnOnce(&Site)) -> Result<(), Why> {
    let mut site = Site::new(ground).await;
    let all = async {
        site.install().await;
        scenario(&site).await;
    };
    let ended = AssertUnwindSafe(all).catch_unwind().await;
    if ended.is_err() {
        eprintln!("{}", site.last_words().await);
    }
    site.uninstall().await;
    site.remove_namespaces().await;
    ended
}

/// A run has ended well, its way out closed and proven.
fn assert_succeeded(status: &HarnessRunStatus) {
    let said = || serde_json::to_string_pretty(status).unwrap();
    match status.reason {
        Some(Reason::EgressNotEnforced) => {
            panic!("the network plugin of this cluster does not enforce NetworkPolicies:\n{}", said())
        }
        Some(Reason::NodeReachable) => panic!(
            "pods of this cluster reach their node, which a user must allow: name a file with `pods: {{allowNodeReach: \
             true}}` in OSTLER_TEST_VALUES\n{}",
            said()
        ),
        _ => {}
    }
    let end = (status.phase, status.reason, status.exit_code);
    assert_eq!(end, (Some(Phase::Succeeded), Some(Reason::Completed), Some(0)), "{}", said());
    let proven = status.conditions.iter().any(|c| c.type_ == "EgressProven" && c.status == "True");
    assert!(proven, "no proof: {}", said());
}

impl Site {
    /// The agent of a run was started once, and its commits are in the code repository.
    async fn assert_ran_once(&self, run: &str) {
        let branch = format!("ostler/{}/{run}", self.runs);
        let starts = self.git.git("code.git", &format!("show {branch}:STARTS")).await;
        assert_eq!(starts.lines().count(), 1, "{run}: {starts}");
        let mut entries = self.git.git("code.git", "branch --format='%(refname:short)'").await;
        entries.retain(|letter| letter != '\'');
        assert_eq!(entries.lines().filter(|name| name.contains(run)).count(), 1, "{entries}");
    }

    /// Runs `ostler` in a pod, with the rights of whoever may view, and gives what it wrote.
    async fn ostler(&self, name: &str, arguments: &[&str]) -> String {
        let system = &self.system;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {
                "server": "https://kubernetes.default.svc",
                "certificate-authority": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            }}],
            "users": [{"name": "me", "user": {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"kubeconfig": kubeconfig.to_string(), "ca.crt": self.git.authority},
        });
        self.let_view(name).await;
        self.ground.kubectl(&["create", "--namespace", &self.runs, "-f", "-"], &map.to_string()).unwrap();
        let command = [&["/ostler"], arguments, &["--kubeconfig", "/given/kubeconfig"]].concat();
        let mut container = restricted_container("main", &self.ground.ostler, &command);
        container["imagePullPolicy"] = self.ground.pull_policy.as_str().into();
        // Whom its git trusts: there is no other file of authorities in the image of the tests.
        container["env"] = json!([{"name": "SSL_CERT_FILE", "value": "/given/ca.crt"}]);
        container["volumeMounts"] =
            json!([{"name": "given", "mountPath": "/given"}, {"name": "tmp", "mountPath": "/tmp"}]);
        let mut pod = serde_json::to_value(restricted_pod(name, &self.ground.ostler, &[])).unwrap();
        pod["spec"]["containers"] = json!([container]);
        pod["spec"]["serviceAccountName"] = name.into();
        pod["spec"]["automountServiceAccountToken"] = true.into();
        pod["spec"]["volumes"] =
            json!([{"name": "given", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}]);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.runs);
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let ended = |pod: &Pod| ["Succeeded", "Failed"].contains(&phase(pod));
        let pod = self.ground.pod_until(&self.runs, name, "has ended", ended).await;
        let said = Ground::log(self.client.clone(), &self.runs, name).await;
        assert_eq!(phase(&pod), "Succeeded", "{system}: ostler {arguments:?}: {said}");
        said
    }

    /// A service account that may view what is there.
    async fn let_view(&self, name: &str) {
        let namespace = ["--namespace", &self.runs];
        let account = ["create", "serviceaccount", name];
        self.ground.kubectl(&[&account[..], &namespace].concat(), "").unwrap();
        let whom = format!("--serviceaccount={}:{name}", self.runs);
        let role = format!("--clusterrole={}:ostler-view", self.system);
        let binding = ["create", "rolebinding", name, &role, &whom];
        self.ground.kubectl(&[&binding[..], &namespace].concat(), "").unwrap();
    }

    /// What the API answers to whoever may view.
    async fn ask_api(&self, path: &str) -> String {
        self.let_view("caller").await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.runs);
        let request = serde_json::from_value(json!({"spec": {"audiences": ["ostler"]}})).unwrap();
        let token = accounts.create_token_request("caller", &PostParams::default(), &request).await.unwrap();
        let token = token.status.unwrap().token;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.system);
        let pod = self.pods_of_role("api").await.into_keys().next().unwrap();
        let mut forwarded = pods.portforward(&pod, &[8080]).await.unwrap();
        let mut stream = forwarded.take_stream(8080).unwrap();
        let question = format!(
            "GET {path} HTTP/1.1\r\nHost: ostler-api\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// The roles are ready and may what they must; a pushed run becomes a result and a branch; its output is found again.
pub(crate) async fn everything_is_in_pods(site: &Site) {
    site.ground.helm(&["test", "ostler", "--namespace", &site.system, "--timeout", "4m"]).unwrap();
    let script = format!("echo here it is\n{}", commits("WORK", "done"));
    site.push("hello", &manifests::run("hello", &script)).await;
    let status = site.until_recorded("hello").await;
    assert_succeeded(&status);
    let entry = status.result.unwrap().commit.unwrap();
    site.git.git("config.git", &format!("merge-base --is-ancestor {entry} ostler/results")).await;
    let branch = format!("ostler/{}/hello", site.runs);
    assert_eq!(site.git.git("code.git", &format!("show {branch}:WORK")).await, "done");
    let head = site.git.git("code.git", &format!("rev-parse {branch}")).await;
    assert_eq!(status.changes.unwrap().head.unwrap(), head);
    site.assert_ran_once("hello").await;

    let line = site.ground.kubectl(&["get", "hrun", "hello", "--namespace", &site.runs], "").unwrap();
    assert!(line.contains("Succeeded"), "{line}");
    let output = site.ostler("logs", &["logs", "hello", "--namespace", &site.runs]).await;
    assert!(output.contains("here it is\n"), "{output}");
    let answer = site.ask_api(&format!("/api/v1/runs/{}/hello", site.runs)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Succeeded"), "{answer}");
}

/// A commit says that a run is to stop, and it does.
pub(crate) async fn a_stop_is_a_commit(site: &Site) {
    let manifest = manifests::run("long", manifests::SLEEP);
    site.push("long", &manifest).await;
    site.until("long", "it runs", |status| {
        assert!(!status.phase.is_some_and(Phase::is_terminal), "it ended: {status:?}");
        status.phase == Some(Phase::Running)
    })
    .await;
    let mut stopped: Value = serde_json::from_str(&manifest).unwrap();
    stopped["spec"]["stop"] = true.into();
    site.push("long", &stopped.to_string()).await;
    let status = site.until_recorded("long").await;
    assert_eq!(
        (status.phase, status.reason),
        (Some(Phase::Stopped), Some(Reason::StopRequested)),
        "{status:?}"
    );
    site.assert_ran_once("long").await;
}

/// The ports of the pod that an agent must not reach: that of the count, and that of kubelet's probe.
const TARGET: [&str; 2] = ["tcp:8080", "tcp:8081"];

/// What no policy allows is refused, by the proxy and by the network plugin; the start waited for the proof of that.
pub(crate) async fn a_run_reaches_what_it_may(site: &Site) {
    let carrier =
        |name, ports: &[&str]| site.ground.carrier(name, "probe", &[&["serve"], ports].concat(), 8081);
    let target = site.ground.carry(&site.servers, carrier("target", &TARGET), "probe", "").await;
    site.ground.carry(&site.runs, carrier("control", &["tcp:8081"]), "probe", "").await;
    let (address, host) = (address_of(&target), site.git.host());
    // Whoever no policy is about gets there, and is counted.
    let reach = async || {
        let dial = ["/carried/probe", "dial", "-within", "30s", &format!("tcp:{address}:8080")];
        let said = site.ground.exec(&site.runs, "control", &dial, b"").await;
        assert!(said.stdout.starts_with("open"), "{said:?}");
    };
    let counted = async || {
        let log = Ground::log(site.client.clone(), &site.servers, "target").await;
        log.lines().filter(|line| line.starts_with("tcp:8080 ")).count()
    };
    reach().await;
    let direct = "timeout 5 env -u HTTP_PROXY -u http_proxy -u ALL_PROXY -u all_proxy git ls-remote";
    let script = format!(
        "if {direct} http://{address}:8080/x; then exit 9; fi
        if timeout 60 git ls-remote https://{host}/config.git; then exit 8; fi\n{}",
        commits("WORK", "done")
    );
    site.push("confined", &manifests::run("confined", &script)).await;
    let status = site.until_recorded("confined").await;
    assert_succeeded(&status);
    let egress = status.egress.clone().unwrap_or_else(|| panic!("{status:?}"));
    assert!(egress.denials.iter().any(|denial| denial.host == host && denial.port == 443), "{egress:?}");
    reach().await;
    eventually("the target counts the control", async || (counted().await >= 2).then_some(())).await;
    assert_eq!(counted().await, 2, "the agent reached the target past the proxy");
}

/// The pods that lead are deleted while an agent works; the next ones go on, and nothing is done twice.
pub(crate) async fn a_run_outlives_its_controller_and_recorder(site: &Site) {
    let script = format!("{}{}", manifests::GATE, commits("WORK", "done"));
    site.push("gated", &manifests::run("gated", &script)).await;
    site.until("gated", "it runs", |status| {
        assert!(!status.phase.is_some_and(Phase::is_terminal), "it ended: {status:?}");
        status.phase == Some(Phase::Running)
    })
    .await;
    let pod = site.pod("gated").await;
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.system);
    for role in ["controller", "recorder"] {
        let before = site.pods_of_role(role).await;
        for name in before.keys() {
            pods.delete(name, &DeleteParams::default()).await.unwrap();
        }
        eventually(&format!("the {role}'s pods are gone"), async || {
            let now = site.pods_of_role(role).await;
            before.values().all(|uid| !now.values().any(|other| other == uid)).then_some(())
        })
        .await;
    }
    let name = pod.name_any();
    let agent = Container { namespace: &site.runs, pod: &name, name: "agent" };
    let open = "until [ -p /tmp/gate ]; do sleep 1; done; echo go >/tmp/gate";
    let opened = exec(site.client.clone(), agent, &["sh", "-c", open], b"").await;
    assert_eq!(opened.code, 0, "{opened:?}");
    let status = site.until_recorded("gated").await;
    assert_succeeded(&status);
    site.assert_ran_once("gated").await;
    let entries = site.git.git("config.git", "log --format=%s ostler/results").await;
    assert!(entries.lines().count() >= 2, "a claim and a result: {entries}");
}
