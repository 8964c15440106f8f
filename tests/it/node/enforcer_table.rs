//! The truth table of network policies: each row with nobody enforcing, which must let it pass, and with the enforcer.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::{Enforcer, Node, address_of, restricted_pod, shared};
use crate::cluster::eventually;

/// From, to, protocol and port, and whether it passes. `WORLD` is the port of a server of the tests that an ip block
/// allows, `OTHER` that of one that no rule names.
#[rustfmt::skip]
pub(crate) const TABLE: &[(&str, &str, &str, bool)] = &[
    // Ingress of a pod: by pods, by pods of namespaces, by port, name of port and range.
    ("client",   "guarded",   "tcp:8080",  true),
    ("client",   "guarded",   "tcp:8081",  false),
    ("client",   "guarded",   "udp:5300",  false),
    ("friend",   "guarded",   "tcp:9090",  true),
    ("friend",   "guarded",   "tcp:8080",  false),
    ("friend",   "guarded",   "udp:5300",  true),
    ("friend",   "guarded",   "udp:5301",  true),
    ("friend",   "guarded",   "udp:5302",  false),
    ("alien",    "guarded",   "tcp:9090",  false),
    ("alien",    "guarded",   "udp:5300",  false),
    // Its egress: to a block but for a part, to pods, to namespaces, to a range of ports.
    ("guarded",  "world",     "tcp:WORLD", true),
    ("guarded",  "world",     "tcp:OTHER", false),
    ("guarded",  "elsewhere", "tcp:WORLD", false),
    ("guarded",  "client",    "udp:5300",  true),
    ("guarded",  "client",    "udp:5301",  false),
    ("guarded",  "client",    "tcp:8080",  false),
    ("guarded",  "friend",    "tcp:8080",  true),
    ("guarded",  "friend",    "tcp:9090",  true),
    ("guarded",  "friend",    "udp:5300",  false),
    ("guarded",  "alien",     "tcp:8081",  true),
    // The node and its API server are like any other.
    ("guarded",  "node",      "tcp:6443",  false),
    ("guarded",  "service",   "tcp:443",   false),
    // A pod that may nothing, and one of whom only the ingress is told.
    ("stranger", "world",     "tcp:WORLD", false),
    ("stranger", "friend",    "tcp:8080",  false),
    ("stranger", "service",   "tcp:443",   false),
    ("client",   "stranger",  "tcp:8080",  false),
    ("friend",   "stranger",  "udp:5300",  false),
    ("sink",     "world",     "tcp:OTHER", true),
    ("sink",     "client",    "tcp:8080",  true),
    ("client",   "sink",      "tcp:8080",  false),
    // Pods that no policy is about.
    ("client",   "friend",    "tcp:8080",  true),
    ("friend",   "client",    "udp:5302",  true),
    ("client",   "elsewhere", "tcp:WORLD", true),
    ("client",   "service",   "tcp:443",   true),
    ("friend",   "alien",     "tcp:8081",  true),
];

pub(crate) const PORTS: [&str; 6] = ["tcp:8080", "tcp:8081", "tcp:9090", "udp:5300", "udp:5301", "udp:5302"];

/// How often what is forbidden is tried again, once it is enforced.
const AGAIN: usize = 3;

/// Pods of two namespaces, and servers of the tests.
struct Field {
    node: &'static Node,
    home: String,
    away: String,
    /// By the names of the table.
    addresses: BTreeMap<&'static str, IpAddr>,
    world: [TcpListener; 2],
    _elsewhere: TcpListener,
}

impl Field {
    async fn new() -> Self {
        let node = shared().await;
        node.enforcer(Enforcer::Off).await;
        let home = node.namespace_restricted("home").await;
        let away = node.namespace_restricted("away").await;
        label(node, &away, json!({"team": "away"})).await;
        let bind = async |address: IpAddr, port| TcpListener::bind((address, port)).await.unwrap();
        let world = [bind(node.world(), 0).await, bind(node.world(), 0).await];
        let elsewhere = bind(node.elsewhere(), world[0].local_addr().unwrap().port()).await;
        let mut addresses = BTreeMap::from([
            ("world", node.world()),
            ("elsewhere", node.elsewhere()),
            ("node", node.address()),
            ("service", "10.96.0.1".parse().unwrap()),
        ]);
        for name in ["guarded", "client", "stranger", "sink", "friend", "alien"] {
            let namespace = if matches!(name, "friend" | "alien") { &away } else { &home };
            let pod = node.run(namespace, &server(node, name).await).await;
            addresses.insert(name, address_of(&pod));
        }
        Self { node, home, away, addresses, world, _elsewhere: elsewhere }
    }

    fn target(&self, to: &str, port: &str) -> String {
        let number = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
        let (protocol, port) = port.split_once(':').unwrap();
        let port = port.replace("WORLD", &number(&self.world[0])).replace("OTHER", &number(&self.world[1]));
        format!("{protocol}:{}:{port}", self.addresses[to])
    }

    /// What passes now, row by row. What is lost on a slow machine looks like what is forbidden.
    async fn passes(&self) -> Vec<bool> {
        let mut passes = vec![false; TABLE.len()];
        for from in ["guarded", "client", "stranger", "sink", "friend", "alien"] {
            let rows: Vec<usize> = (0..TABLE.len()).filter(|&row| TABLE[row].0 == from).collect();
            let targets: Vec<String> =
                rows.iter().map(|&row| self.target(TABLE[row].1, TABLE[row].2)).collect();
            let said = self.dial(from, &targets).await;
            for (row, open) in rows.into_iter().zip(said) {
                passes[row] = open;
            }
        }
        passes
    }

    async fn dial(&self, from: &str, targets: &[String]) -> Vec<bool> {
        let namespace = if matches!(from, "friend" | "alien") { &self.away } else { &self.home };
        dial(self.node, namespace, from, targets).await
    }

    /// Waits until each row passes that should, and each other does not; then these must stay so.
    async fn holds(&self, expected: impl Fn(bool) -> bool) {
        let rows = |passes: &[bool], wrong: &dyn Fn(bool, bool) -> bool| -> Vec<_> {
            TABLE
                .iter()
                .zip(passes)
                .filter(|(row, passes)| wrong(expected(row.3), **passes))
                .map(|(row, _)| *row)
                .collect()
        };
        eventually("the table holds", async || {
            let wrong = rows(&self.passes().await, &|expected, passes| expected != passes);
            if !wrong.is_empty() {
                eprintln!("not as told yet: {wrong:?}");
            }
            wrong.is_empty().then_some(())
        })
        .await;
        for _ in 0..AGAIN {
            let leaked = rows(&self.passes().await, &|expected, passes| passes && !expected);
            assert_eq!(leaked, [], "passed, and had not before");
        }
    }

    async fn apply_policies(&self) {
        let api: Api<NetworkPolicy> = Api::namespaced(self.node.cluster().client().await, &self.home);
        let (world, elsewhere) = (self.node.world(), self.node.elsewhere());
        let block = json!({"cidr": format!("{world}/28"), "except": [format!("{elsewhere}/32")]});
        for policy in policies(&block, self.world[0].local_addr().unwrap().port()) {
            api.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
        }
    }
}

/// The policies that the table is about; `world` is the port of a block that `guarded` may reach.
pub(crate) fn policies(block: &Value, world: u16) -> [Value; 4] {
    let app = |name: &str| json!({"matchLabels": {"app": name}});
    let away = json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["away"]}]});
    let policy = |name: &str, pods: &str, spec: Value| {
        let mut policy = json!({"metadata": {"name": name}, "spec": spec});
        policy["spec"]["podSelector"] = app(pods);
        policy
    };
    [
        policy(
            "in",
            "guarded",
            json!({
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"from": [{"podSelector": app("client")}], "ports": [{"port": 8080}]},
                    {
                        "from": [{"namespaceSelector": away, "podSelector": app("friend")}],
                        "ports": [{"port": "named"}, {"protocol": "UDP", "port": 5300, "endPort": 5301}],
                    },
                ],
            }),
        ),
        policy(
            "out",
            "guarded",
            json!({
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [{"ipBlock": block}], "ports": [{"protocol": "TCP", "port": world}]},
                    {"to": [{"podSelector": app("client")}], "ports": [{"protocol": "UDP", "port": 5300}]},
                    {"to": [{"namespaceSelector": away}], "ports": [{"port": 8080, "endPort": 9090}]},
                ],
            }),
        ),
        policy("nothing", "stranger", json!({"policyTypes": ["Ingress", "Egress"]})),
        policy("not-in", "sink", json!({"policyTypes": ["Ingress"]})),
    ]
}

/// A pod that answers on all ports of the table, and has the label `app`.
async fn server(node: &Node, name: &str) -> Pod {
    let command = [&["/probe", "serve"][..], &PORTS].concat();
    let mut pod = restricted_pod(name, node.probe_image().await, &command);
    pod.metadata.labels = Some(BTreeMap::from([("app".to_owned(), name.to_owned())]));
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.ports = serde_json::from_value(json!([{"name": "named", "containerPort": 9090}])).unwrap();
    container.readiness_probe =
        serde_json::from_value(json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1})).unwrap();
    pod
}

/// Which of the targets a pod reaches, in their order.
async fn dial(node: &Node, namespace: &str, from: &str, targets: &[String]) -> Vec<bool> {
    let command: Vec<&str> =
        ["/probe", "dial", "-within", "1s"].into_iter().chain(targets.iter().map(String::as_str)).collect();
    let output = node.exec(namespace, from, "main", &command, b"").await;
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), targets.len(), "{output:?}");
    lines.iter().map(|line| line.starts_with("open ")).collect()
}

async fn label(node: &Node, namespace: &str, labels: Value) {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(node.cluster().client().await);
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    api.patch(namespace, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn policies_hold_as_the_truth_table_says_and_without_an_enforcer_everything_passes() {
    let field = Field::new().await;
    field.apply_policies().await;
    field.holds(|_| true).await;

    field.node.enforcer(Enforcer::Correct).await;
    field.holds(|passes| passes).await;
    // The machine is as much a stranger as any other.
    let guarded = (field.addresses["guarded"], 8080);
    let outside = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(guarded)).await;
    assert!(!matches!(outside, Ok(Ok(_))), "the machine reaches a guarded pod");
    // But kubelet is not: its probes reach a pod that nobody may.
    let mut probed = server(field.node, "probed").await;
    probed.metadata.labels = Some(BTreeMap::from([("app".to_owned(), "stranger".to_owned())]));
    field.node.run(&field.home, &probed).await;

    field.node.enforcer(Enforcer::Off).await;
    field.holds(|_| true).await;
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn an_enforcer_misbehaves_on_request() {
    let field = Field::new().await;
    field.apply_policies().await;
    let forbidden = [field.target("world", "tcp:WORLD")];
    let reaches = async || field.dial("stranger", &forbidden).await[0];

    field.node.enforcer(Enforcer::Late(Duration::from_hours(1))).await;
    assert!(reaches().await, "it is late, so nothing is enforced yet");
    field.node.enforcer(Enforcer::Late(Duration::from_secs(1))).await;
    eventually("it is enforced, late", async || (!reaches().await).then_some(())).await;

    field.node.enforcer(Enforcer::Leaking(2)).await;
    let (passed, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    eventually("some pass and some do not", async || {
        let count = if reaches().await { &passed } else { &refused };
        count.set(count.get() + 1);
        (passed.get() > 0 && refused.get() > 0).then_some(())
    })
    .await;
    field.node.enforcer(Enforcer::Off).await;
}
