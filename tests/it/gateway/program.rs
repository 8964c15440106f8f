//! `ostler proxy` as a process.

use std::{net::SocketAddr, process::Stdio};

use ostler::proxy::tunnel::{Client, Endpoint, Target};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::stage::{HOSTS, Stage, eventually};
use crate::egress::origin::Echo;

struct Program {
    child: Child,
    addresses: Value,
    folder: tempfile::TempDir,
}

impl Program {
    async fn start(stage: &Stage, recorder: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, HOSTS).unwrap();
        let [certificate, key] = stage.certificates.files();
        let any = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_ostler"))
            .args(["proxy", "--listen", any, "--canary", any, "--health", any])
            .args(["--recorder", &recorder.to_string()])
            .arg("--tls-cert")
            .arg(certificate)
            .arg("--tls-key")
            .arg(key)
            .arg("--egress-hosts")
            .arg(hosts)
            .arg("--kubeconfig")
            .arg(stage.cluster.kubeconfig())
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        Self { child, addresses: serde_json::from_str(&line).unwrap(), folder }
    }

    fn address(&self, which: &str) -> SocketAddr {
        self.addresses[which].as_str().unwrap().parse().unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address("health")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn it_serves_tells_and_ends() {
    let (stage, echo) = (Stage::start().await, Echo::start().await);
    let mut program = Program::start(&stage, ([127, 0, 0, 1], echo.port).into()).await;
    assert!(program.get("/healthz").await.starts_with("HTTP/1.1 200"));
    eventually("it is ready", async || {
        program.get("/readyz").await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;

    let open = json!({"rules": [{"name": "open", "hosts": ["target.test"], "ports": [echo.port]}], "allowPrivate": true});
    let agent = stage.agent(stage.spec(&[open])).await;
    let (address, canary) = (program.address("listen"), program.address("canary"));
    let endpoint = Endpoint { address, canary, ..stage.endpoint() };
    let client = Client::new(&endpoint, agent.tokens().to_owned()).unwrap();
    let mut stream = client.open(&Target::Recorder).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    drop(stream);
    // A policy opens it, but it is on the proxy's own loopback.
    let inside = Target::Connect { host: "target.test".to_owned(), port: echo.port };
    let refused = client.open(&inside).await.unwrap_err().to_string();
    assert!(refused.contains("control plane"), "{refused}");
    assert!(client.open(&Target::Connect { host: "other.test".to_owned(), port: 443 }).await.is_err());
    drop(TcpStream::connect(canary).await.unwrap());
    eventually("the canary saw it", async || (client.proof().await.unwrap().1 == 1).then_some(())).await;

    let metrics = program.get("/metrics").await;
    for line in [
        "ostler_proxy_tunnels_total{target=\"recorder\",verdict=\"open\"} 1",
        "ostler_proxy_tunnels_total{target=\"connect\",verdict=\"denied\"} 2",
        "ostler_proxy_canary_total 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
    }
    let id = rustix::process::Pid::from_raw(program.child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_mins(2), program.child.wait()).await;
    let log = std::fs::read_to_string(program.folder.path().join("log")).unwrap();
    assert!(ended.expect("it ends").unwrap().success(), "{log}");
    // The program has ended: all its lines are there.
    let refused: Vec<_> = log.lines().filter(|line| line.contains("ostler::audit")).collect();
    assert_eq!(refused.len(), 2, "{log}");
    for word in [&stage.namespace, &agent.name, "other.test:443", "decision=\"denied\""] {
        assert!(refused[1].contains(word), "{word} is missing in {}", refused[1]);
    }
    let token = std::fs::read_to_string(agent.tokens().join("ostler-egress")).unwrap();
    assert!(!log.contains(token.rsplit('.').next().unwrap()), "the log tells a token");
}

#[tokio::test]
async fn what_it_cannot_use_it_says() {
    let stage = Stage::start().await;
    let [certificate, _] = stage.certificates.files();
    let any = "127.0.0.1:0";
    let output = Command::new(env!("CARGO_BIN_EXE_ostler"))
        .args(["proxy", "--listen", any, "--canary", any, "--health", any, "--recorder", "127.0.0.1:9"])
        .arg("--tls-cert")
        .arg(&certificate)
        .arg("--tls-key")
        .arg(&certificate)
        .env_clear()
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("has no private key as PEM"), "{said}");
}
