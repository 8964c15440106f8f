//! What ostler's service accounts may exec in pods. There is no node here: what is let through fails later, for want of one.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{IMAGE, helm::Helm};
use crate::cluster::{Cluster, eventually, shared};

/// What the API server made of a request for a stream.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It would have passed it on to a node.
    Passed,
    /// RBAC does not know that right.
    NoRight,
    /// The admission policy, with its message.
    Refused(String),
}

/// Asks as a user, by kubectl.
async fn ask(helm: &Helm, arguments: &[&str]) -> Verdict {
    let said = helm.kubectl(arguments, "").await.failed();
    if let Some((_, message)) = said.split_once("denied request: ") {
        Verdict::Refused(message.trim().to_owned())
    } else if said.contains("is forbidden: User ") {
        Verdict::NoRight
    } else {
        assert!(said.contains("does not have a host assigned"), "{said}");
        Verdict::Passed
    }
}

async fn pod(cluster: &Cluster, namespace: &str) {
    let container = |name: &str| json!({"name": name, "image": "registry.example.com/any"});
    let pod = json!({
        "metadata": {"name": "run", "labels": {"ostler.dev/role": "agent"}},
        "spec": {"containers": [container("agent"), container("sidecar")]},
    });
    let api: Api<Pod> = Api::namespaced(cluster.client().await, namespace);
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

/// A prompt with the identity of a role.
async fn role(cluster: &Cluster, namespace: &str, role: &str) -> Helm {
    let group = format!("system:serviceaccounts:{namespace}");
    let user = format!("system:serviceaccount:{namespace}:ostler-{role}");
    Helm::of(&cluster.kubeconfig_for(&user, &[&group])).await
}

#[tokio::test]
async fn only_our_own_command_in_the_sidecar_passes() {
    let cluster = shared().await;
    let namespace = cluster.namespace("exec").await;
    let admin = Helm::of(cluster.kubeconfig()).await;
    let install = ["install", "ostler", "charts/ostler", "--namespace", &namespace, "--set", IMAGE];
    admin.run(&install).await.succeeded();
    pod(cluster, &namespace).await;
    let controller = role(cluster, &namespace, "controller").await;
    let exec = async |who: &Helm, container: &str, command: &[&str]| {
        let begin = ["exec", "run", "--namespace", &namespace, "--container", container, "--stdin", "--"];
        ask(who, &[&begin, command].concat()).await
    };
    const ATTACH: [&str; 3] = ["/ostler", "harness", "attach"];
    // A new policy is in force a moment after it is made.
    eventually("the policy is in force", async || {
        matches!(exec(&controller, "agent", &["sh"]).await, Verdict::Refused(_)).then_some(())
    })
    .await;

    assert_eq!(exec(&controller, "sidecar", &ATTACH).await, Verdict::Passed);
    let refused = |message: &str| Verdict::Refused(message.to_owned());
    let command = refused("ostler execs \"/ostler harness attach\" only");
    assert_eq!(exec(&controller, "sidecar", &["sh"]).await, command);
    assert_eq!(exec(&controller, "sidecar", &["/ostler", "harness"]).await, command);
    assert_eq!(exec(&controller, "sidecar", &["/ostler", "harness", "attach", "--more"]).await, command);
    assert_eq!(exec(&controller, "sidecar", &["sh", "-c", "/ostler harness attach"]).await, command);
    let container = refused("ostler execs in the container \"sidecar\" only");
    assert_eq!(exec(&controller, "agent", &ATTACH).await, container);

    // The others have no such right, and people are not ostler's to judge.
    for who in ["recorder", "proxy"] {
        let who = role(cluster, &namespace, who).await;
        assert_eq!(exec(&who, "sidecar", &ATTACH).await, Verdict::NoRight);
    }
    assert_eq!(exec(&admin, "agent", &["sh"]).await, Verdict::Passed);
    let attach = ["attach", "run", "--namespace", &namespace, "--container", "sidecar"];
    assert_eq!(ask(&controller, &attach).await, Verdict::NoRight);

    // What RBAC might be given later is refused all the same.
    let more = format!("{namespace}-more");
    let right =
        ["create", "role", &more, "--namespace", &namespace, "--verb=get,create", "--resource=pods/attach"];
    admin.kubectl(&right, "").await.succeeded();
    let subject = format!("--serviceaccount={namespace}:ostler-controller");
    let role = format!("--role={more}");
    let grant = ["create", "rolebinding", &more, "--namespace", &namespace, &role, &subject];
    admin.kubectl(&grant, "").await.succeeded();
    eventually("the right is there", async || {
        let now = ask(&controller, &attach).await;
        (now == refused("ostler only execs; it neither attaches nor forwards ports")).then_some(())
    })
    .await;
}
