//! Names that our own program looks up in an image that has nothing else: no `/etc/nsswitch.conf`, no library for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kube::api::LogParams;
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};

use super::{Enforcer, restricted_pod, shared, stage::Stage};
use crate::scenarios::manifests::{manifest, run_with};

/// A name that only the server of names knows.
const BY_DNS: &str = "by-dns.ostler.test";
/// A name that only a hosts file knows.
const BY_HOSTS: &str = "by-hosts.ostler.test";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn a_static_program_finds_names_of_the_hosts_file_and_of_the_dns() {
    let node = shared().await;
    let IpAddr::V4(elsewhere) = node.elsewhere() else { panic!("the node has IPv4") };
    let names = Names::serve(node.world(), elsewhere).await;
    let namespace = node.namespace_restricted("names").await;
    let signers = ostler::git::sign::SigningKey::generate("names").unwrap();
    let signers = signers.allowed_signers_line("ostler").unwrap();
    for (pod, name, at) in [("hosts", BY_HOSTS, node.world()), ("dns", BY_DNS, node.elsewhere())] {
        let server = TcpListener::bind((at, 0)).await.unwrap();
        let url = format!("http://{name}:{}/ledger.git", server.local_addr().unwrap().port());
        let command = ["/ostler", "verify", "results", "--signers", "/signers/file", &url];
        let mut asks = restricted_pod(pod, node.ostler_image().await, &command);
        asks.metadata.annotations = Some([("signers".to_owned(), signers.clone())].into());
        let spec = asks.spec.as_mut().unwrap();
        spec.host_aliases =
            serde_json::from_value(json!([{"ip": node.world(), "hostnames": [BY_HOSTS]}])).unwrap();
        let file = json!({"path": "file", "fieldRef": {"fieldPath": "metadata.annotations['signers']"}});
        spec.volumes = serde_json::from_value(json!([
            {"name": "signers", "downwardAPI": {"items": [file]}},
            {"name": "tmp", "emptyDir": {}},
        ]))
        .unwrap();
        spec.containers[0].volume_mounts = serde_json::from_value(json!([
            {"name": "signers", "mountPath": "/signers"},
            {"name": "tmp", "mountPath": "/tmp"},
        ]))
        .unwrap();
        node.create(&namespace, &asks).await;
        let ended = node.pod_until(&namespace, pod, "has ended", |pod| {
            matches!(
                pod.status.as_ref().and_then(|status| status.phase.as_deref()),
                Some("Failed" | "Succeeded")
            )
        });
        tokio::select! {
            // It comes, and is hung up on.
            came = server.accept() => drop(came.unwrap()),
            _ = ended => {
                let log = node.pods_of(&namespace).await.logs(pod, &LogParams::default()).await;
                panic!("nobody came to {name}: {log:?}");
            }
        }
    }
    drop(names);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn an_agent_reaches_by_name_what_its_policy_allows() {
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let IpAddr::V4(elsewhere) = node.elsewhere() else { panic!("the node has IPv4") };
    let _names = Names::serve(node.world(), elsewhere).await;
    let stage = Stage::new("names").await;
    let server = TcpListener::bind((elsewhere, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(async move { while server.accept().await.is_ok() {} });
    let policy = json!({"rules": [{"name": "it", "hosts": [BY_DNS], "ports": [port]}], "allowPrivate": true});
    let ask = |name: &str| {
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/3128; \
             printf 'CONNECT {name}:{port} HTTP/1.1\\r\\nHost: {name}:{port}\\r\\n\\r\\n' >&3; \
             read -r said <&3; echo \"{name} $said\"; exec 3>&-\n"
        )
    };
    let script =
        format!("bash -c '{}'", [ask(BY_DNS), ask("other.ostler.test")].concat().replace('\'', "\""));
    let run = run_with("asks", &script, &json!({"egressPolicyRefs": [{"name": "by-name"}]}));
    let files =
        [("policy.yaml", &*manifest("EgressPolicy", "by-name", &policy)), ("runs/asks.yaml", run.as_str())];
    stage.config.push(&files, "a run that asks by name");
    let status = stage.until_recorded("asks").await;
    stage.assert_end("asks", &status, ("Succeeded", "Completed", Some(0))).await;
    let output = stage.output("asks");
    assert!(output.contains(&format!("{BY_DNS} HTTP/1.1 200")), "{output}");
    assert!(output.contains("other.ostler.test HTTP/1.1 403"), "{output}");
}

/// A server of names (RFC 1035) that knows one; all others do not exist.
pub(super) struct Names {
    serving: tokio::task::JoinHandle<()>,
}

impl Names {
    pub(super) async fn serve(at: IpAddr, address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(at, 53)).await.unwrap();
        let serving = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((size, from)) = socket.recv_from(&mut query).await {
                if let Some(answer) = answer(&query[..size], address) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { serving }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The answer to a query with one question.
fn answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let (mut name, mut at) = (Vec::new(), HEADER);
    while let size @ 1.. = usize::from(*query.get(at)?) {
        name.push(String::from_utf8(query.get(at + 1..=at + size)?.to_vec()).ok()?);
        at += 1 + size;
    }
    let question = query.get(HEADER..at + 5)?;
    let (known, is_a) = (name.join(".").eq_ignore_ascii_case(BY_DNS), question.ends_with(&[0, 1, 0, 1]));
    let count = u8::from(known && is_a);
    let code = if known { 0 } else { 3 };
    // an answer, authoritative; no recursion
    let mut answer = [&query[..2], &[0x84, code, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
    if count == 1 {
        // the name of the question, A, IN, a minute, four bytes
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
