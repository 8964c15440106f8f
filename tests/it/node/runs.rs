//! Runs in pods of the node, from a push to the signed result and the code branch.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use ostler::kinds::{Reason, harness_run::HarnessRunStatus};
use tokio::net::{TcpListener, UdpSocket};

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

/// Who enforces the policy when the pod starts, who does once its sidecar is there, and how the run ends.
#[rustfmt::skip]
const ENFORCED: [(&str, Enforcer, Option<Enforcer>, End<'_>); 4] = [
    ("off",     Enforcer::Off,        None, ("Failed", "EgressNotEnforced", None)),
    ("leaking", Enforcer::Leaking(3), None, ("Failed", "EgressNotEnforced", None)),
    ("late",    Enforcer::Off,        Some(Enforcer::Late(Duration::from_secs(2))), ("Succeeded", "Completed", Some(0))),
    ("correct", Enforcer::Correct,    None, ("Succeeded", "Completed", Some(0))),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn no_agent_starts_before_its_way_out_is_closed() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("egress").await;
    let target = Target::new(node.elsewhere()).await;
    // Whoever no policy is about gets there, and is counted.
    let probe = restricted_pod("control", node.probe_image().await, &["/probe", "wait"]);
    node.run(&stage.namespace, &probe).await;
    for protocol in ["tcp", "udp"] {
        let reach = ["/probe", "dial", "-within", "60s", &format!("{protocol}:{}", target.address)];
        let said = node.exec(&stage.namespace, "control", "main", &reach, b"").await;
        assert!(said.stdout.starts_with("open"), "{said:?}");
    }
    eventually("the target counts", async || (target.counted() == (1, 1)).then_some(())).await;

    // What an agent sends is on its way when its run ends: a packet that nobody drops arrives before the next run.
    let (ip, port) = (target.address.ip(), target.address.port());
    let script = format!(
        "date +%s >STARTED\ngit add STARTED\ngit commit --quiet -m started\n\
         for i in 1 2 3 4 5; do bash -c 'echo hello >/dev/udp/{ip}/{port}' || true; done\n\
         if timeout 3 bash -c 'exec 3<>/dev/tcp/{ip}/{port}'; then exit 9; fi\n{}",
        commits("WORK", "done")
    );
    for (name, first, then, end) in ENFORCED {
        node.enforcer(first).await;
        stage.push_run(name, &script);
        let mut closed = None;
        if let Some(then) = then {
            let open = |status: &HarnessRunStatus| {
                let proven = status.startup.as_ref().and_then(|startup| startup.egress_proven_ms);
                (status.reason, proven) == (Some(Reason::PreparingWorkspace), None)
            };
            stage.until(name, "its sidecar is there, and its way out is open", open).await;
            closed = Some(jiff::Timestamp::now().as_second());
            node.enforcer(then).await;
        }
        let status = stage.until_recorded(name).await;
        stage.assert_end(name, &status, end).await;
        let branch = format!("ostler/{}/{name}", stage.namespace);
        let started = !stage.code.bare_git(&["branch", "--list", &branch]).is_empty();
        assert_eq!(started, end.0 == "Succeeded", "{name}: what the agent did");
        if let Some(closed) = closed {
            let began = stage.code.bare_git(&["show", &format!("{branch}:STARTED")]);
            assert!(began.parse::<i64>().unwrap() >= closed, "{name}: the agent began at {began}");
        }
        assert_eq!(target.counted(), (1, 1), "{name}: the agent reached the target");
    }
    // It still counts.
    let reach = ["/probe", "dial", "-within", "60s", &format!("udp:{}", target.address)];
    node.exec(&stage.namespace, "control", "main", &reach, b"").await;
    eventually("the target counts once more", async || (target.counted().1 == 2).then_some(())).await;
}

/// A server that counts who comes: connections, and senders of datagrams, whom it answers.
struct Target {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    senders: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Target {
    async fn new(at: IpAddr) -> Self {
        let listener = TcpListener::bind((at, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let (connections, senders) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let target = Self { address, connections: Arc::clone(&connections), senders: Arc::clone(&senders) };
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                connections.fetch_add(1, Ordering::SeqCst);
            }
        });
        tokio::spawn(async move {
            let mut datagram = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut datagram).await {
                senders.lock().unwrap().insert(from);
                // whoever does not wait for it is gone
                let _ = socket.send_to(b"hello", from).await;
            }
        });
        target
    }

    /// Connections, and senders of datagrams.
    fn counted(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.senders.lock().unwrap().len())
    }
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
