//! What the charts render, without a cluster.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{IMAGE, ROLES, ROOT, helm::Helm, name, objects, of_kind};

/// Everything that is off by default.
pub(super) const EVERYTHING: [&str; 14] = [
    IMAGE,
    "fullnameOverride=agents",
    "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "watchNamespace=team-a",
    "secrets.names={git,push}",
    "api.ingress.enabled=true,api.ingress.host=ostler.example.com,api.ingress.tlsSecret=tls",
    "metrics.serviceMonitor.enabled=true,metrics.from[0].namespaceSelector.matchLabels.name=monitoring",
    "proxy.service.ipFamily=IPv6",
    "proxy.tls.existingSecret=a,recorder.tls.existingSecret=b",
    "imagePullSecrets[0].name=pull",
    "controller.tolerations[0].operator=Exists,controller.nodeSelector.zone=a",
    "controller.priorityClassName=high,controller.extraArgs={--identity,me}",
    "pods.pullPolicy=Always,pods.pullSecrets={one,two},pods.allowNodeReach=true,pods.allowUnenforcedLimits=true",
    "controller.signers=a key,controller.ledgerSigners=another key,controller.applyAs={applier,other}",
];

#[tokio::test]
async fn both_charts_pass_lint_with_little_and_with_everything() {
    let helm = Helm::alone().await;
    helm.run(&["lint", "--strict", "charts/ostler-crds"]).await.succeeded();
    let values = EVERYTHING.join(",");
    for values in [IMAGE, &values] {
        helm.run(&["lint", "--strict", "charts/ostler", "--set", values]).await.succeeded();
    }
}

#[tokio::test]
async fn versions_are_that_of_the_program() {
    for chart in ["ostler", "ostler-crds"] {
        let text = std::fs::read_to_string(format!("{ROOT}/charts/{chart}/Chart.yaml")).unwrap();
        let chart: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}

#[tokio::test]
async fn values_that_nobody_knows_or_that_are_wrong_are_refused_by_name() {
    let helm = Helm::alone().await;
    for (value, named) in [
        ("controler.replicas=2", "controler"),
        ("controller.replica=2", "replica"),
        ("controller.replicas=many", "replicas"),
        ("controller.replicas=-1", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=sha256:abc", "digest"),
        ("watchNamespace=Team_A", "watchNamespace"),
        ("proxy.service.ipFamily=IPv5", "ipFamily"),
        ("networkPolicy.apiServerPorts={0}", "apiServerPorts"),
        ("controller.resources.limits.memory=lots", "memory"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("pods.pullPolicy=Sometimes", "pullPolicy"),
        ("pods.pullSecrets={One}", "pullSecrets"),
        ("pods.allowNodeReach=maybe", "allowNodeReach"),
        ("pods.apiServer=kubernetes.default.svc:443", "apiServer"),
    ] {
        let complaint = helm.template("a", &[IMAGE, value]).await.failed();
        assert!(complaint.contains("values don't meet the specifications"), "{value}: {complaint}");
        assert!(complaint.contains(named), "{value}: {complaint}");
    }
    for (values, text) in [
        (&["image.tag=v1"][..], "image.repository: name the image"),
        (&[IMAGE, "proxy.tls.existingSecret=a"], "give both or none"),
        (&[IMAGE, "api.ingress.enabled=true"], "api.ingress.host"),
        (&[IMAGE, "metrics.serviceMonitor.enabled=true"], "metrics.from: name who scrapes"),
    ] {
        let complaint = helm.template("a", values).await.failed();
        assert!(complaint.contains(text), "{values:?}: {complaint}");
    }
    let complaint = helm.run(&["template", "c", "charts/ostler-crds", "--set", "keep=false"]).await.failed();
    assert!(complaint.contains("keep"), "{complaint}");
}

#[tokio::test]
async fn every_right_has_its_reason() {
    let helm = Helm::alone().await;
    for values in [&[IMAGE][..], &EVERYTHING] {
        let text = helm.template("a", values).await.succeeded();
        let rules = without_a_reason(&text);
        assert!(rules.is_empty(), "no comment stands before {rules:?}");
        let written = text.lines().filter(|line| line.trim_start().starts_with("- apiGroups: ")).count();
        let all = objects(&text);
        let roles = of_kind(&all, "Role").chain(of_kind(&all, "ClusterRole"));
        let rules: usize = roles.map(|role| role["rules"].as_array().unwrap().len()).sum();
        let others = of_kind(&all, "ValidatingAdmissionPolicy").count();
        assert_eq!(
            written,
            rules + others,
            "each rule begins with its apiGroups, so that none was overlooked"
        );
    }
    let bare = "rules:\n  - apiGroups: [a]\n    resources: [b]\n    verbs: [get]\n";
    assert_eq!(without_a_reason(bare).len(), 1, "the check itself");
}

/// The rules that no comment precedes; what an admission policy matches is no right.
fn without_a_reason(manifests: &str) -> Vec<&str> {
    let lines: Vec<&str> = manifests.lines().collect();
    let is_rule = |line: &str| line.trim_start().starts_with("- apiGroups: ");
    let explained = |line: &str| line.trim_start().starts_with("# ") || line.trim() == "resourceRules:";
    lines.windows(2).filter(|pair| is_rule(pair[1]) && !explained(pair[0])).map(|pair| pair[1]).collect()
}

#[tokio::test]
async fn rights_name_what_they_are_for_and_no_more() {
    let helm = Helm::alone().await;
    for values in [&[IMAGE][..], &EVERYTHING] {
        let all = objects(&helm.template("a", values).await.succeeded());
        for role in of_kind(&all, "Role").chain(of_kind(&all, "ClusterRole")) {
            for rule in role["rules"].as_array().unwrap() {
                let words = ["apiGroups", "resources", "verbs"].map(|field| rule[field].as_array().unwrap());
                assert!(
                    words.iter().all(|words| !words.is_empty() && !words.contains(&"*".into())),
                    "{rule}"
                );
            }
        }
    }
    // With namespaces, the whole cluster has reviews and our own CRDs to offer; and sight of
    // the proxy's callers and of our own policies.
    let all = objects(&helm.template("a", &EVERYTHING).await.succeeded());
    let roles = of_kind(&all, "ClusterRole").filter(|role| ROLES.iter().any(|r| name(role).ends_with(r)));
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        let resource = rule["resources"][0].as_str().unwrap();
        let harmless = ["customresourcedefinitions", "tokenreviews", "subjectaccessreviews"];
        let looks = rule["verbs"] == serde_json::json!(["list", "watch"]);
        let looks = looks && (resource == "pods" || rule["resourceNames"][0] == "ostler-agents");
        assert!(harmless.contains(&resource) || looks, "{rule}");
    }
    let bound = of_kind(&all, "RoleBinding").filter(|b| b["metadata"]["namespace"] == "team-a").count();
    assert_eq!(bound, ROLES.len());
    let secrets = all.iter().filter_map(|object| object["rules"].as_array()).flatten();
    let secrets: Vec<_> = secrets.filter(|rule| rule["resources"][0] == "secrets").collect();
    assert!(
        !secrets.is_empty() && secrets.iter().all(|rule| rule["resourceNames"].is_array()),
        "{secrets:?}"
    );
}

/// What the kubelet makes of a Service with this address, in each family.
const SERVICES: [[&str; 2]; 2] = [["10.96.0.7", "10.96.0.1"], ["fd00::7", "fd00::1"]];

#[tokio::test]
async fn the_roles_take_the_arguments_that_the_chart_gives_them() {
    let helm = Helm::alone().await;
    for (values, services, prefix) in
        [(&[IMAGE][..], SERVICES[0], "OSTLER"), (&EVERYTHING[..], SERVICES[1], "AGENTS")]
    {
        let all = objects(&helm.template("a", values).await.succeeded());
        let service = format!("{}-proxy", prefix.to_lowercase());
        assert!(
            of_kind(&all, "Service").any(|s| name(s) == service),
            "the kubelet's variable is made of its name"
        );
        for deployment in of_kind(&all, "Deployment") {
            let arguments = filled(deployment, prefix, services);
            assert!(arguments.iter().all(|argument| !argument.contains("$(")), "{arguments:?}");
            let complaint = complaint(&arguments).await;
            // It took its arguments; what they name is not there.
            assert!(complaint.lines().any(|line| line.starts_with("ostler: ")), "{arguments:?}: {complaint}");
        }
    }
    let unknown = ["controller", "--no-such-flag"].map(str::to_owned);
    let complaint = complaint(&unknown).await;
    assert!(!complaint.contains("ostler: ") && complaint.contains("--no-such-flag"), "{complaint}");
}

/// The arguments of a Deployment, as the kubelet writes them.
fn filled(deployment: &Value, prefix: &str, [proxy, server]: [&str; 2]) -> Vec<String> {
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
    let variables = [
        (format!("$({prefix}_PROXY_SERVICE_HOST)"), proxy),
        ("$(KUBERNETES_SERVICE_HOST)".to_owned(), server),
        ("$(KUBERNETES_SERVICE_PORT)".to_owned(), "443"),
    ];
    let fill = |argument: String| {
        variables.iter().fold(argument, |argument, (variable, value)| argument.replace(variable, value))
    };
    arguments.into_iter().map(fill).collect()
}

/// What the program says to these arguments, where neither the files nor the cluster that they speak of is there.
async fn complaint(arguments: &[String]) -> String {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_ostler"));
    let nowhere = ["--kubeconfig", "/nonexistent/kubeconfig"];
    let ended = program.env_clear().args(arguments).args(nowhere).kill_on_drop(true).output().await.unwrap();
    assert_eq!(ended.status.code(), Some(2));
    String::from_utf8(ended.stderr).unwrap()
}

#[tokio::test]
async fn the_controller_is_told_everything_about_pods() {
    let helm = Helm::alone().await;
    let all = objects(&helm.template("a", &EVERYTHING).await.succeeded());
    let find = |kind: &'static str, wanted: &str| of_kind(&all, kind).find(|o| name(o) == wanted).unwrap();
    let (controller, proxy) = (find("Deployment", "agents-controller"), find("Deployment", "agents-proxy"));
    let arguments = filled(controller, "AGENTS", SERVICES[1]);
    let after = |flag: &str| -> Vec<&str> {
        let pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
        pairs.map(|pair| pair[1].as_str()).collect()
    };
    for (flag, values) in [
        ("--places", &["pods"][..]),
        ("--proxy", &["[fd00::7]:8443"]),
        ("--proxy-canary", &["[fd00::7]:8444"]),
        ("--api-server", &["[fd00::1]:443"]),
        ("--proxy-namespace", &["a"]),
        ("--pull-policy", &["Always"]),
        ("--pull-secret", &["one", "two"]),
        ("--signers", &["/etc/ostler/signers/signers"]),
        ("--ledger-signers", &["/etc/ostler/signers/ledger_signers"]),
    ] {
        assert_eq!(after(flag), values, "{flag}");
    }
    for flag in ["--allow-node-reach", "--allow-unenforced-limits"] {
        assert!(arguments.iter().any(|argument| argument == flag), "{flag}");
    }
    // The network policy of agents' pods leads to the proxy's pods, at the port that takes tunnels.
    let template = &proxy["spec"]["template"];
    let selector = proxy["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let labels = selector.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap()));
    let told: BTreeSet<String> = after("--proxy-label").into_iter().map(str::to_owned).collect();
    assert_eq!(told, labels.collect::<BTreeSet<_>>());
    let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
    let tunnels = ports.iter().find(|port| port["name"] == "tunnels").unwrap();
    assert_eq!(after("--proxy-port"), [tunnels["containerPort"].to_string()]);

    let lines = &find("ConfigMap", "agents-controller")["data"];
    assert_eq!(*lines, serde_json::json!({"signers": "a key", "ledger_signers": "another key"}));
    let volumes = controller["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["configMap"]["name"] == "agents-controller"));
    let other = [&EVERYTHING[..], &["controller.signers=a new key"]].concat();
    let other = objects(&helm.template("a", &other).await.succeeded());
    let other = of_kind(&other, "Deployment").find(|o| name(o) == "agents-controller").unwrap();
    let annotations = |o: &Value| o["spec"]["template"]["metadata"]["annotations"].clone();
    assert_ne!(annotations(other), annotations(controller), "they are read once: others start it anew");
}

#[tokio::test]
async fn the_figures_of_every_role_can_be_scraped_and_by_nobody_else() {
    let helm = Helm::alone().await;
    let all = objects(&helm.template("a", &EVERYTHING).await.succeeded());
    let monitor = of_kind(&all, "ServiceMonitor").next().unwrap();
    let has = |labels: &Value, wanted: &Value| {
        wanted.as_object().unwrap().iter().all(|(key, value)| labels[key] == *value)
    };
    let found: Vec<&Value> = of_kind(&all, "Service")
        .filter(|s| has(&s["metadata"]["labels"], &monitor["spec"]["selector"]["matchLabels"]))
        .collect();
    let [service] = found[..] else { panic!("the operator finds one Service: {found:?}") };
    let endpoint = &monitor["spec"]["endpoints"][0];
    let port = &service["spec"]["ports"][0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&port["name"], &"/metrics".into()));
    for role in ROLES {
        let named = |o: &&Value| name(o) == format!("agents-{role}");
        let template = &of_kind(&all, "Deployment").find(named).unwrap()["spec"]["template"];
        assert!(has(&template["metadata"]["labels"], &service["spec"]["selector"]), "{role}");
        let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|p| p["name"] == port["targetPort"]), "{role}: {ports:?}");
        let policy = of_kind(&all, "NetworkPolicy").find(named).unwrap();
        let ingress = policy["spec"]["ingress"].as_array().unwrap();
        let open: Vec<&Value> = ingress.iter().filter(|rule| rule["ports"][0]["port"] == "health").collect();
        assert!(open.len() == 1 && open[0]["from"][0]["namespaceSelector"].is_object(), "{role}: {open:?}");
    }
    let little = helm.template("a", &[IMAGE]).await.succeeded();
    let closed = objects(&little);
    let rules = of_kind(&closed, "NetworkPolicy").filter_map(|policy| policy["spec"]["ingress"].as_array());
    assert!(rules.flatten().all(|rule| rule["ports"][0]["port"] != "health"), "nobody was named");
}

#[tokio::test]
async fn nobody_keeps_the_canary_from_being_reached() {
    let helm = Helm::alone().await;
    let all = objects(&helm.template("a", &[IMAGE]).await.succeeded());
    let policy = of_kind(&all, "NetworkPolicy").find(|policy| name(policy) == "ostler-proxy").unwrap();
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let open = |rule: &&Value| rule["ports"][0]["port"] == "canary";
    let open: Vec<&Value> = rules.iter().filter(open).collect();
    assert!(
        open.len() == 1 && open[0].get("from").is_none(),
        "closed here, it would prove nothing: {open:?}"
    );
    let tunnels = rules.iter().find(|rule| rule["ports"][0]["port"] == "tunnels").unwrap();
    assert_eq!(tunnels["from"][0]["podSelector"]["matchLabels"]["ostler.dev/role"], "agent");
}

#[tokio::test]
async fn plain_manifests_and_crds_are_those_of_the_charts() {
    let helm = Helm::alone().await;
    let template = ["template", "ostler", "charts/ostler", "--namespace", "ostler-system"];
    let options = ["--skip-tests", "--values", "deploy/values.yaml"];
    let rendered = helm.run(&[&template[..], &options].concat()).await.succeeded();
    let read = |file: &str| std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert!(body(&read("deploy/ostler.yaml")) == rendered, "deploy/ostler.yaml is old; run: make generate");
    let crds = body(&read("charts/ostler-crds/templates/crds.yaml"));
    let unkept = crds.replace("\n  annotations:\n    helm.sh/resource-policy: keep", "");
    assert!(unkept == read("schemas/crds.yaml"), "charts/ostler-crds is old; run: make generate");
    let kept = objects(&crds);
    assert_eq!(kept.len(), 5);
    for crd in kept {
        assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{}", name(&crd));
    }
}
