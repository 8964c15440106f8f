//! Runs in pods of the node, from a push to the signed result and the code branch.

use std::{
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;

use super::{
    Enforcer, restricted_pod, shared,
    stage::{End, Stage},
};
use crate::{cluster::eventually, scenarios::manifests::commits};

/// True of a pod whose agent has no Secret, no token and no environment of ours, and which has none of another container.
const BARE: &str = r#"
    .spec as $spec
    | ($spec.containers | length == 1)
    and ($spec.automountServiceAccountToken == false)
    and ($spec.containers[0] | .name == "agent" and has("env") == false and has("envFrom") == false)
    and ([$spec.volumes[] | select(has("secret"))] == [])
    and ([$spec.containers[0].volumeMounts[].name] as $mounted
        | [$spec.volumes[] | select(has("projected")) | .name] as $tokens
        | ($tokens | length > 0) and ($mounted - $tokens == $mounted))
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_push_becomes_a_signed_result_and_a_code_branch() {
    shared().await.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("way").await;
    let script = format!("echo here it is\n{}", commits("WORK", "done"));
    stage.push_run("hello", &script);
    let pod = stage.until_pod("hello").await;
    assert_bare(&pod);
    let status = stage.until_recorded("hello").await;
    stage.assert_end("hello", &status, ("Succeeded", "Completed", Some(0))).await;

    let verified = stage
        .ostler()
        .args(["verify", "results", "--signers"])
        .arg(stage.signers())
        .arg(stage.config.bare())
        .output();
    let verified = verified.unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let branch = format!("ostler/{}/hello", stage.namespace);
    assert_eq!(stage.code.bare_git(&["show", &format!("{branch}:WORK")]), "done");
    assert_eq!(stage.code.bare_git(&["log", "--format=%an", "-1", &branch]), "agent");
    assert_eq!(status.changes.unwrap().head.unwrap(), stage.code.bare_git(&["rev-parse", &branch]));
    assert!(stage.output("hello").contains("here it is\n"));
    assert!(stage.code_web.seen().iter().any(|request| request.path.contains("git-receive-pack")));
}

/// How well the policy is enforced, and how a run then ends.
#[rustfmt::skip]
const ENFORCED: [(&str, Enforcer, End<'_>); 4] = [
    ("off",     Enforcer::Off,                          ("Failed", "EgressNotEnforced", None)),
    ("leaking", Enforcer::Leaking(3),                   ("Failed", "EgressNotEnforced", None)),
    ("late",    Enforcer::Late(Duration::from_secs(8)), ("Succeeded", "Completed", Some(0))),
    ("correct", Enforcer::Correct,                      ("Succeeded", "Completed", Some(0))),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn no_agent_starts_before_its_way_out_is_closed() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("egress").await;
    let (target, count) = counting(node.elsewhere()).await;
    // Whoever no policy is about gets there, and is counted.
    let probe = restricted_pod("control", node.probe_image().await, &["/probe", "wait"]);
    node.run(&stage.namespace, &probe).await;
    let reach = ["/probe", "dial", "-within", "60s", &format!("tcp:{target}")];
    let said = node.exec(&stage.namespace, "control", "main", &reach, b"").await;
    assert!(said.stdout.starts_with("open"), "{said:?}");
    eventually("the target counts", async || (count.load(Ordering::SeqCst) == 1).then_some(())).await;

    let dial = format!("/dev/tcp/{}/{}", target.ip(), target.port());
    let script =
        format!("if timeout 3 bash -c 'exec 3<>{dial}'; then exit 9; fi\n{}", commits("WORK", "done"));
    for (name, enforcer, end) in ENFORCED {
        node.enforcer(enforcer).await;
        stage.push_run(name, &script);
        let status = stage.until_recorded(name).await;
        stage.assert_end(name, &status, end).await;
        let started = !stage.code.bare_git(&["branch", "--list", &format!("ostler/*/{name}")]).is_empty();
        assert_eq!(started, end.0 == "Succeeded", "{name}: what the agent did");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{name}: the agent reached the target");
    }
}

/// A server that counts who comes.
async fn counting(at: IpAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, count)
}

/// As somebody at a cluster would look.
fn assert_bare(pod: &Pod) {
    use std::io::Write;
    let mut jq =
        Command::new("jq").args(["-e", BARE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    jq.stdin.take().unwrap().write_all(serde_json::to_string(pod).unwrap().as_bytes()).unwrap();
    let said = jq.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", serde_json::to_string_pretty(&pod.spec).unwrap());
}
