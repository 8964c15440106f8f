use serde_json::{Value, json};

use super::*;
use crate::{
    harness::pod::TOKENS,
    kubernetes::workloads::PullPolicy,
    ports::workloads::{Checkout, Limit, PodWishes},
    proxy::tunnel::Endpoint,
    resolve::testing::place_spec,
};

fn settings() -> PodSettings {
    PodSettings {
        image: "registry.test/ostler@sha256:1".into(),
        pull_policy: Some(PullPolicy::IfNotPresent),
        pull_secrets: vec!["registry".parse().unwrap()],
        proxy: Endpoint {
            address: "10.0.0.9:8443".parse().unwrap(),
            canary: "10.0.0.9:8444".parse().unwrap(),
            server_name: "proxy".into(),
            recorder_name: "recorder".into(),
            authorities: String::new(),
        },
        api_server: None,
        allow_unenforced: false,
        allow_node_reach: false,
        proof_seconds: 60,
        stall: crate::kubernetes::workloads::STALL,
        scope: None,
        network: None,
    }
}

fn spec() -> PlaceSpec {
    PlaceSpec { image: Some("registry.test/agent:1".into()), ..place_spec() }
}

fn composed(spec: &PlaceSpec) -> Value {
    serde_json::to_value(pod(&settings(), spec, Timestamp::UNIX_EPOCH).unwrap()).unwrap()
}

#[test]
fn the_names_are_the_same_for_the_same_run_only() {
    let key = |name: &str, uid: &str| RunKey {
        namespace: "team".parse().unwrap(),
        name: name.parse().unwrap(),
        uid: uid.parse().unwrap(),
    };
    let first = name(&key("fix-login", "u-1"));
    assert!(first.starts_with("fix-login-") && first == name(&key("fix-login", "u-1")));
    assert_ne!(first, name(&key("fix-login", "u-2")), "a run that was made again has a pod of its own");
    let long = name(&key(&format!("{}-{}", "a".repeat(51), "b".repeat(11)), "u-1"));
    assert!(long.len() <= MAX_NAME && !long.contains("--"), "{long}");
}

#[test]
fn what_was_asked_for_comes_back_out_of_the_annotation() {
    let pod = composed(&spec());
    let file: PodFile =
        serde_json::from_str(pod["metadata"]["annotations"][ANNOTATION].as_str().unwrap()).unwrap();
    assert_eq!(file.spec, spec());
    assert_eq!(file.proxy, settings().proxy);
}

#[test]
fn the_agent_sees_neither_token_nor_secret_nor_anything_of_ours() {
    let secret = crate::ports::workloads::SecretKey { secret: "key".parse().unwrap(), key: "k".into() };
    let spec = PlaceSpec {
        secret_env: vec![("MODEL_KEY".into(), secret.clone())],
        secret_files: vec![(".key".into(), secret)],
        ..spec()
    };
    let pod = composed(&spec);
    let agent = &pod["spec"]["containers"][0];
    assert!(agent.get("env").is_none() && agent.get("envFrom").is_none());
    let mounts = agent["volumeMounts"].as_array().unwrap();
    let names: Vec<&str> = mounts.iter().map(|mount| mount["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bin", "shared", "workspace", "home", "tmp"]);
    for volume in pod["spec"]["volumes"].as_array().unwrap() {
        assert!(volume.get("secret").is_none() && !volume.to_string().contains("secretName"), "{volume}");
    }
    let tokens: Vec<&str> = pod["spec"]["volumes"][7]["projected"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| source["serviceAccountToken"]["audience"].as_str().unwrap())
        .collect();
    assert_eq!(tokens, TOKENS);
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
}

#[test]
fn wishes_reach_the_pod() {
    let session: Uid = "s-1".parse().unwrap();
    let wishes = PodWishes {
        session: Some("payments".parse().unwrap()),
        runtime_class: Some("gvisor".into()),
        service_account: Some("coder".into()),
        node_selector: [("pool".to_owned(), "agents".to_owned())].into(),
        tolerations: serde_json::from_value(json!([{"key": "agents", "operator": "Exists"}])).unwrap(),
        affinity: serde_json::from_value(json!({"podAntiAffinity": {}})).unwrap(),
        pull_secrets: vec!["theirs".parse().unwrap()],
        storage_class: Some("fast".into()),
        workspace_bytes: Some(7),
    };
    let spec = PlaceSpec { pod: wishes, persistent_workspace: Some(session.clone()), ..spec() };
    let pod = composed(&spec);
    let written = &pod["spec"];
    assert_eq!(written["runtimeClassName"], "gvisor");
    assert_eq!(written["serviceAccountName"], "coder");
    assert_eq!(written["nodeSelector"], json!({"pool": "agents"}));
    assert_eq!(written["tolerations"][0]["key"], "agents");
    assert_eq!(written["affinity"], json!({"podAntiAffinity": {}}));
    assert_eq!(written["imagePullSecrets"], json!([{"name": "registry"}, {"name": "theirs"}]));
    assert_eq!(written["volumes"][3]["persistentVolumeClaim"]["claimName"], "ostler-s-1");
    assert_eq!(pod["metadata"]["labels"][SESSION], "payments");
    let claim = serde_json::to_value(claim(&spec, &session)).unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "7");
}

#[test]
fn what_an_author_wrote_is_set_aside_and_the_kubelet_comes_after_the_sidecar() {
    let mut spec = spec();
    spec.limits.memory_bytes = Limit { value: 1 << 30, authored: true };
    let resources = composed(&spec)["spec"]["containers"][0]["resources"].clone();
    assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"]);
    assert_eq!(resources["limits"]["cpu"], "1000m");
    let bytes = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    assert!(bytes(&resources["limits"]["ephemeral-storage"]) > spec.limits.disk_bytes.value);
    assert!(bytes(&resources["requests"]["ephemeral-storage"]) < spec.limits.disk_bytes.value, "a default");
}

#[test]
fn what_no_pod_can_be_is_refused_with_a_reason() {
    let of = |change: fn(&mut PlaceSpec)| {
        let mut spec = spec();
        change(&mut spec);
        match pod(&settings(), &spec, Timestamp::UNIX_EPOCH).unwrap_err() {
            Error::Refused { reason, message, .. } => (reason, message),
            other => panic!("{other}"),
        }
    };
    let checkout = |url: &str| Checkout {
        url: url.to_owned(),
        reference: None,
        depth: 1,
        secret: None,
        branch: "b".into(),
    };
    let (reason, message) = of(|spec| spec.image = None);
    assert!(reason == Reason::InvalidSpec && message.contains("spec.image"), "{message}");
    let (reason, message) = of(|spec| spec.workspace_dir = "/run/ostler/x".into());
    assert!(reason == Reason::InvalidSpec && message.contains("workspaceDir"), "{message}");
    let (reason, message) = of(|spec| spec.instructions = Some(("A.md".into(), "x".repeat(200 << 10))));
    assert!(reason == Reason::LimitExceeded && message.contains("bytes"), "{message}");
    let mut local = spec();
    local.checkout = Some(checkout("file:///srv/git/a.git"));
    assert!(pod(&settings(), &local, Timestamp::UNIX_EPOCH).is_err());
    local.checkout = Some(checkout("https://git.test/a.git"));
    assert!(pod(&settings(), &local, Timestamp::UNIX_EPOCH).is_ok());
}
