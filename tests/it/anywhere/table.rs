//! The truth table of network policies between pods, for the network plugin of any cluster.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, resume_unwind},
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use super::{Ground, site::Site};
use crate::{
    cluster::eventually,
    node::{PORTS, TABLE, address_of, policies},
};

/// The pods of the table, and whether each is in the other namespace.
const PODS: [(&str, bool); 6] = [
    ("guarded", false),
    ("client", false),
    ("stranger", false),
    ("sink", false),
    ("friend", true),
    ("alien", true),
];
/// How often what is forbidden is tried again, once it is enforced.
const AGAIN: usize = 3;

type Row = (&'static str, &'static str, &'static str, bool);

/// The pods, and what is at which address.
struct Field<'a> {
    site: &'a Site,
    addresses: BTreeMap<&'static str, String>,
    rows: Vec<Row>,
}

/// The rows of the table between pods, and to the API server, hold once there are policies; before and after them,
/// everything passes.
pub(crate) async fn policies_hold(ground: Ground) {
    let _reported = ground.reported().await;
    let site = Site::new(ground).await;
    let all = async {
        site.make_namespaces().await;
        let field = Field::new(&site).await;
        field.holds(|_| true).await;
        // Blocks are about addresses outside of the cluster: here there is none of them.
        let block = json!({"cidr": "192.0.2.0/24"});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": policies(&block, 443).map(whole)});
        site.ground.kubectl(&["create", "--namespace", &site.runs, "-f", "-"], &list.to_string()).unwrap();
        field.holds(|passes| passes).await;
        let delete = ["delete", "networkpolicies", "--all", "--namespace", &site.runs];
        site.ground.kubectl(&delete, "").unwrap();
        field.holds(|_| true).await;
    };
    let ended = AssertUnwindSafe(all).catch_unwind().await;
    site.remove_namespaces().await;
    if let Err(why) = ended {
        resume_unwind(why);
    }
}

fn whole(policy: Value) -> Value {
    let mut policy = policy;
    policy["apiVersion"] = "networking.k8s.io/v1".into();
    policy["kind"] = "NetworkPolicy".into();
    policy
}

impl<'a> Field<'a> {
    async fn new(site: &'a Site) -> Self {
        let label = ["label", "namespace", &site.servers, "team=away"];
        site.ground.kubectl(&label, "").unwrap();
        let services: Api<Service> = Api::namespaced(site.client.clone(), "default");
        let service = services.get("kubernetes").await.unwrap().spec.unwrap().cluster_ip.unwrap();
        let made = PODS.map(async |(name, away)| {
            let namespace = if away { &site.servers } else { &site.runs };
            let arguments = [&["serve"][..], &PORTS].concat();
            let mut pod = site.ground.carrier(name, "probe", &arguments, 8080);
            pod["spec"]["containers"][0]["ports"] = json!([{"name": "named", "containerPort": 9090}]);
            (name, address_of(&site.ground.carry(namespace, pod, "probe", "").await).to_string())
        });
        let mut addresses: BTreeMap<_, _> = futures::future::join_all(made).await.into_iter().collect();
        addresses.insert("service", service);
        let rows = TABLE.iter().filter(|row| addresses.contains_key(row.1)).copied().collect();
        Self { site, addresses, rows }
    }

    /// The rows that are not as told. What is lost on a slow cluster looks like what is forbidden.
    async fn wrong(&self, expected: impl Fn(bool) -> bool) -> Vec<(Row, bool)> {
        let asked = PODS.map(async |(from, away)| {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.0 == from).collect();
            let target = |row: &&Row| {
                let (protocol, port) = row.2.split_once(':').unwrap();
                match &self.addresses[row.1] {
                    address if address.contains(':') => format!("{protocol}:[{address}]:{port}"),
                    address => format!("{protocol}:{address}:{port}"),
                }
            };
            let targets: Vec<String> = rows.iter().map(target).collect();
            let dial = ["/carried/probe", "dial", "-within", "2s"];
            let command: Vec<&str> = dial.into_iter().chain(targets.iter().map(String::as_str)).collect();
            let namespace = if away { &self.site.servers } else { &self.site.runs };
            let said = self.site.ground.exec(namespace, from, &command, b"").await;
            assert_eq!(said.stdout.lines().count(), rows.len(), "{said:?}");
            let passes = said.stdout.lines().map(|line| line.starts_with("open ")).collect::<Vec<_>>();
            rows.into_iter().copied().zip(passes).collect::<Vec<_>>()
        });
        let said = futures::future::join_all(asked).await.concat();
        said.into_iter().filter(|(row, passes)| expected(row.3) != *passes).collect()
    }

    /// Waits until each row is as told; then what is forbidden must stay so.
    async fn holds(&self, expected: impl Fn(bool) -> bool + Copy) {
        eventually(
            "the network plugin holds the truth table; the rows above say where it does not",
            async || {
                let wrong = self.wrong(expected).await;
                if !wrong.is_empty() {
                    eprintln!("not as told yet (from, to, port, what is told; whether it passes): {wrong:?}");
                }
                wrong.is_empty().then_some(())
            },
        )
        .await;
        for _ in 0..AGAIN {
            let mut leaked = self.wrong(expected).await;
            leaked.retain(|(_, passes)| *passes);
            assert_eq!(leaked, [], "passed, and had not before");
        }
    }
}
