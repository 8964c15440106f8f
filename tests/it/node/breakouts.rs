//! What an agent tries to get out of its container: the attempts of `breakouts.yaml`, each in a run that goes on after it.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr, path::Path};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use ostler::kinds::{Phase, Reason};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Enforcer, Node, address_of, names::Names, restricted_pod, shared, stage::Stage};
use crate::scenarios::manifests::{manifest, run_with};

/// A port of the node that nobody else has, on which a cloud would answer.
const METADATA_PORT: u16 = 8099;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    name: String,
    r#try: String,
    refused: String,
    never: Option<String>,
    control: Option<String>,
    #[serde(default)]
    outside: bool,
}

/// What was said in one place: by attempt, the output; and whether its control worked.
struct Said(BTreeMap<usize, (String, bool)>);

impl Said {
    fn of(output: &str) -> Self {
        let mut said: BTreeMap<usize, (String, bool)> = BTreeMap::new();
        for line in output.lines() {
            let Some((number, rest)) = line.split_once(['|', '+']) else { continue };
            let Ok(number) = number.parse() else { continue };
            let (text, worked) = said.entry(number).or_default();
            if line.contains('|') && !line.starts_with(&format!("{number}+")) {
                text.push_str(rest);
                text.push('\n');
            } else {
                *worked = rest == "0";
            }
        }
        Self(said)
    }
}

/// All attempts as one script: they run side by side, and then say what they saw, each line with its number.
fn script(attempts: &[Attempt], words: &[(&str, String)]) -> String {
    let known = |text: &str| {
        words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
    };
    let mut script = format!("cd /tmp\n{}\n", include_str!("breakouts.sh"));
    for (number, attempt) in attempts.iter().enumerate() {
        let control = attempt.control.as_deref().unwrap_or("true");
        writeln!(
            script,
            "{{ (\n{}\n) >said.{number} 2>&1; (\n{}\n) >control.{number} 2>&1; echo $? >code.{number}; }} &",
            known(&attempt.r#try),
            known(control),
        )
        .unwrap();
    }
    script
        + &format!(
            "wait\nfor ((n = 0; n < {}; n++)); do sed \"s/^/$n|/\" said.$n; echo \"$n+$(cat code.$n)\"; done\n",
            attempts.len()
        )
}

/// A whole program of bash as a script of sh.
fn in_bash(script: &str) -> String {
    format!("bash <<'ATTEMPTS'\n{script}ATTEMPTS\n")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and a node: make test-node"]
async fn no_attempt_leads_out_of_the_agents_container() {
    let attempts: Vec<Attempt> = serde_saphyr::from_str(include_str!("breakouts.yaml")).unwrap();
    let node = shared().await;
    node.enforcer(Enforcer::Correct).await;
    let stage = Stage::new("breaks").await;
    let IpAddr::V4(elsewhere) = node.elsewhere() else { panic!("the node has IPv4") };
    let _names = Names::serve(node.world(), elsewhere).await;
    serve_metadata(node).await;
    let server = TcpListener::bind((elsewhere, 0)).await.unwrap();
    let target = server.local_addr().unwrap();
    tokio::spawn(async move { while server.accept().await.is_ok() {} });

    let other = start_other(&stage).await;
    let place: Value =
        serde_json::from_str(&other.annotations()["ostler.dev/place"]).expect("the place of a run is JSON");
    let at = |field: &str| place["proxy"][field].as_str().unwrap().to_owned();
    let services: Api<Service> = Api::namespaced(stage.client.clone(), "default");
    let service = services.get("kubernetes").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let words = [
        ("proxy", at("address")),
        ("canary", at("canary")),
        ("health", at("address").replace(":8443", ":8081")),
        ("service", format!("{service}:443")),
        ("api", format!("{}:{}", node.address(), api_port(node))),
        ("kubelet", format!("{}:10250", node.address())),
        ("metadata_port", METADATA_PORT.to_string()),
        ("target", target.to_string()),
        ("dns", format!("{}:53", node.world())),
        ("other", address_of(&other).to_string()),
    ];
    let ports = [443, METADATA_PORT, target.port(), 8443, 8444, 8081, 3128];
    let rule = json!({"name": "all", "cidrs": ["0.0.0.0/0"], "ports": ports});
    let policy = manifest("EgressPolicy", "wide", &json!({"rules": [rule], "allowPrivate": true}));
    let spec = json!({"egressPolicyRefs": [{"name": "wide"}]});
    let run = run_with("breaker", &in_bash(&script(&attempts, &words)), &spec);
    let mut files = vec![("policy.yaml".to_owned(), policy), ("runs/breaker.yaml".to_owned(), run)];
    for (name, limits, script, _) in &ENDS {
        let limits: Value = serde_json::from_str(limits).unwrap();
        files.push((format!("runs/{name}.yaml"), run_with(name, script, &json!({"resources": limits}))));
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    stage.config.push(&files, "attempts");

    // Meanwhile the same from a pod that no policy is about.
    let outside: Vec<_> = attempts.iter().filter(|attempt| attempt.outside).collect();
    assert_open_outside(&stage, &outside, &words).await;

    let status = stage.until_recorded("breaker").await;
    stage.assert_end("breaker", &status, ("Succeeded", "Completed", Some(0))).await;
    let output = stage.output("breaker");
    let Said(said) = Said::of(&output);
    let mut broken = Vec::new();
    for (number, attempt) in attempts.iter().enumerate() {
        let (text, worked) = said.get(&number).cloned().unwrap_or_default();
        let out = attempt.never.as_ref().is_some_and(|never| text.contains(never.as_str()));
        if !text.contains(&attempt.refused) || out || !worked {
            broken.push(format!("{}: control worked: {worked}; it said {text:?}", attempt.name));
        }
    }
    assert!(broken.is_empty(), "{}\n{output}", broken.join("\n"));

    join_all(ENDS.iter().map(async |(name, _, _, ends)| {
        let status = stage.until_recorded(name).await;
        let ended = (status.phase.map_or("", Phase::as_str), status.reason.map_or("", Reason::as_str));
        assert_eq!(ended, *ends, "{name}: {}", status.message.unwrap_or_default());
    }))
    .await;

    // Nobody came into the other run.
    let stop = Patch::Merge(json!({"spec": {"stop": true}}));
    stage.runs().patch("other", &PatchParams::default(), &stop).await.unwrap();
    let status = stage.until_recorded("other").await;
    stage.assert_end("other", &status, ("Stopped", "StopRequested", Some(143))).await;
    let said = stage.output("other");
    assert!(said.contains("listening") && !said.contains("somebody came"), "{said}");
}

/// What the agent does to its own pod: limits, a script, and how the run then ends.
const ENDS: [(&str, &str, &str, (&str, &str)); 3] = [
    (
        "forks",
        r#"{"processes": 48}"#,
        "for n in $(seq 400); do sleep 600 & done; wait\n",
        ("Failed", "ProcessLimit"),
    ),
    (
        "fills",
        r#"{"disk": "64Mi"}"#,
        "for n in 1 2 3 4; do head -c 40M /dev/zero >/tmp/$n; done; exec sleep 600\n",
        ("Failed", "DiskLimit"),
    ),
    // It may ask its shim to end, as a kubelet would: that is no success, whatever it does next.
    (
        "drains",
        "{}",
        "trap 'exit 0' TERM; kill -TERM 1; while :; do sleep 0.1; done\n",
        ("Failed", "Drained"),
    ),
];

/// As the metadata service of a cloud: every pod reaches it by way of its node.
async fn serve_metadata(node: &Node) {
    let mut server = node.cluster().server().await;
    let keeper = server.keeper();
    let arguments = ["address", "add", "169.254.169.254/32", "dev", "lo"].map(str::to_owned);
    assert_eq!(keeper.run("metadata-address", Path::new("ip"), &arguments), 0);
    let arguments = ["serve".to_owned(), format!("tcp:{METADATA_PORT}")];
    keeper.start("metadata", &node.programs.join("probe"), &arguments);
}

fn api_port(node: &Node) -> u16 {
    let kubeconfig = std::fs::read_to_string(node.cluster().kubeconfig()).unwrap();
    let server = kubeconfig.split("https://").nth(1).unwrap();
    let port = server.split(':').nth(1).unwrap();
    port.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// A run whose agent listens, and says when somebody comes.
async fn start_other(stage: &Stage<'_>) -> Pod {
    let listens = "use Socket; $| = 1; socket(S, PF_INET, SOCK_STREAM, 0); \
        bind(S, sockaddr_in(8080, INADDR_ANY)) && listen(S, 5) or die; print \"listening\\n\"; \
        while (accept(C, S)) { print \"somebody came\\n\" }";
    stage.push_run("other", &format!("exec perl -e '{listens}'\n"));
    let listening = |status: &ostler::kinds::harness_run::HarnessRunStatus| {
        status.startup.as_ref().is_some_and(|startup| startup.first_output_ms.is_some())
    };
    stage.until("other", "it listens", listening).await;
    stage.until_pod("other").await
}

async fn assert_open_outside(stage: &Stage<'_>, attempts: &[&Attempt], words: &[(&str, String)]) {
    let node = stage.node;
    let image = node.debian_image().await;
    node.run(&stage.namespace, &restricted_pod("outside", image, &["sleep", "1000000"])).await;
    join_all(attempts.iter().map(|attempt| async move {
        let tried = words
            .iter()
            .fold(attempt.r#try.clone(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value));
        let tried = format!("{}\n{tried}", include_str!("breakouts.sh"));
        let said = node.exec(&stage.namespace, "outside", "main", &["bash", "-c", &tried], b"").await;
        assert_eq!(said.stdout, "open\n", "{}: {said:?}", attempt.name);
    }))
    .await;
}
