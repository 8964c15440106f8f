//! The node keeps the fixture's promises.

use std::{fs, path::Path};

use k8s_openapi::api::{authentication::v1::TokenReview, core::v1::Pod};
use kube::{
    Api,
    api::{LogParams, PostParams},
};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::{Node, address_of, restricted_container, restricted_pod, shared};

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn a_restricted_pod_of_each_image_runs() {
    let node = shared().await;
    let namespace = node.namespace_restricted("images").await;
    let pods = [
        ("probe", node.probe_image().await, &["/probe", "env"][..], "HOSTNAME=probe"),
        ("busybox", node.busybox_image().await, &["sh", "-c", "id -u"], "65532"),
        ("debian", node.debian_image().await, &["git", "--version"], "git version 2."),
        ("ostler", node.ostler_image().await, &["/ostler", "--version"], "ostler "),
    ];
    for (name, image, command, expected) in pods {
        node.create(&namespace, &restricted_pod(name, image, command)).await;
        node.pod_until(&namespace, name, "succeeded", |pod| phase(pod) == "Succeeded").await;
        let log = node.pods_of(&namespace).await.logs(name, &LogParams::default()).await.unwrap();
        assert!(log.contains(expected), "{name}: {log}");
    }
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn a_pod_that_is_not_restricted_is_refused() {
    let node = shared().await;
    let namespace = node.namespace_restricted("refused").await;
    let mut pod = restricted_pod("root", node.probe_image().await, &["/probe", "wait"]);
    pod.spec.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user = Some(0);
    let error = node.pods_of(&namespace).await.create(&PostParams::default(), &pod).await.unwrap_err();
    assert!(error.to_string().contains("violates PodSecurity \"restricted"), "{error}");
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn commands_run_in_a_container_with_input_output_and_an_exit_code() {
    let node = shared().await;
    let namespace = node.namespace_restricted("exec").await;
    let pod = restricted_pod("box", node.busybox_image().await, &["sleep", "1000000"]);
    node.run(&namespace, &pod).await;
    let script = "read line; echo out $line; echo err >&2; exit 7";
    let output = node.exec(&namespace, "box", "main", &["sh", "-c", script], b"in\n").await;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("out in\n", "err\n", 7));
    assert_eq!(node.exec(&namespace, "box", "main", &["true"], b"").await.code, 0);
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn an_init_container_brings_a_program_and_a_sidecar_lives_as_long_as_the_pod() {
    let node = shared().await;
    let namespace = node.namespace_restricted("sidecar").await;
    let (bare, busybox) = (node.probe_image().await, node.busybox_image().await);
    let mut init = restricted_container("init", busybox, &["cp", "/bin/busybox", "/tools/busybox"]);
    let mut sidecar = restricted_container("sidecar", bare, &["/probe", "wait"]);
    sidecar["restartPolicy"] = json!("Always");
    let wait = "until [ -e /tools/go ]; do /tools/busybox sleep 0.1; done";
    let mut main = restricted_container("main", bare, &["/tools/busybox", "sh", "-c", wait]);
    for container in [&mut init, &mut sidecar, &mut main] {
        container["volumeMounts"] = json!([{"name": "tools", "mountPath": "/tools"}]);
    }
    let mut pod = serde_json::to_value(restricted_pod("agent", bare, &[])).unwrap();
    pod["spec"]["initContainers"] = json!([init, sidecar]);
    pod["spec"]["containers"] = json!([main]);
    pod["spec"]["volumes"] = json!([{"name": "tools", "emptyDir": {}}]);
    node.run(&namespace, &serde_json::from_value(pod).unwrap()).await;

    // The sidecar takes commands, and what it writes is seen in the other.
    let touch = ["/tools/busybox", "touch", "/tools/go"];
    let output = node.exec(&namespace, "agent", "sidecar", &touch, b"").await;
    assert_eq!(output.code, 0, "{output:?}");
    let pod = node.pod_until(&namespace, "agent", "succeeded", |pod| phase(pod) == "Succeeded").await;
    let inits = pod.status.unwrap().init_container_statuses.unwrap();
    let sidecar = inits.iter().find(|status| status.name == "sidecar").unwrap();
    assert!(sidecar.state.as_ref().unwrap().terminated.is_some(), "{sidecar:?}");
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn a_projected_token_is_for_its_audience_only() {
    let node = shared().await;
    let namespace = node.namespace_restricted("token").await;
    let mut pod = restricted_pod("asker", node.probe_image().await, &["/probe", "wait"]);
    let spec = pod.spec.as_mut().unwrap();
    spec.volumes = serde_json::from_value(json!([{"name": "token", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "ostler", "expirationSeconds": 600}},
    ]}}]))
    .unwrap();
    spec.containers[0].volume_mounts =
        serde_json::from_value(json!([{"name": "token", "mountPath": "/token"}])).unwrap();
    node.run(&namespace, &pod).await;
    let token = node.exec(&namespace, "asker", "main", &["/probe", "cat", "/token/token"], b"").await.stdout;

    let reviews: Api<TokenReview> = Api::all(node.cluster().client().await);
    let review = async |audience: &str| {
        let review = json!({"metadata": {}, "spec": {"token": token, "audiences": [audience]}});
        let review = serde_json::from_value(review).unwrap();
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    };
    let accepted = review("ostler").await;
    assert_eq!(accepted.authenticated, Some(true), "{accepted:?}");
    assert_eq!(
        accepted.user.unwrap().username.unwrap(),
        format!("system:serviceaccount:{namespace}:default")
    );
    assert_ne!(review("somebody-else").await.authenticated, Some(true));
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn a_container_that_takes_too_much_memory_is_killed_and_says_so() {
    let node = shared().await;
    let namespace = node.namespace_restricted("memory").await;
    let mut pod = restricted_pod("glutton", node.probe_image().await, &["/probe", "eat", "512"]);
    pod.spec.as_mut().unwrap().containers[0].resources =
        serde_json::from_value(json!({"limits": {"memory": "64Mi"}})).unwrap();
    node.create(&namespace, &pod).await;
    let pod = node.pod_until(&namespace, "glutton", "failed", |pod| phase(pod) == "Failed").await;
    let status = &pod.status.unwrap().container_statuses.unwrap()[0];
    let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((ended.reason.as_deref(), ended.exit_code), (Some("OOMKilled"), 137), "{ended:?}");
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn an_image_that_is_not_there_is_not_looked_for_elsewhere() {
    let node = shared().await;
    let namespace = node.namespace_restricted("image").await;
    node.create(&namespace, &restricted_pod("lost", "nowhere.test/lost:1", &["/lost"])).await;
    node.pod_until(&namespace, "lost", "says that its image is missing", |pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let mut waits =
            statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
        waits.any(|reason| matches!(reason, "ErrImagePull" | "ImagePullBackOff"))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn pods_reach_servers_of_the_tests_which_see_their_address_and_reach_them() {
    let node = shared().await;
    let namespace = node.namespace_restricted("world").await;
    let pod = restricted_pod("talker", node.probe_image().await, &["/probe", "serve", "tcp:8080"]);
    let address = address_of(&node.run(&namespace, &pod).await);
    for server in [node.world(), node.elsewhere()] {
        let server = TcpListener::bind((server, 0)).await.unwrap();
        let target = format!("tcp:{}", server.local_addr().unwrap());
        let dial = async {
            node.exec(&namespace, "talker", "main", &["/probe", "dial", "-within", "60s", &target], b"").await
        };
        let (output, accepted) = tokio::join!(dial, server.accept());
        assert_eq!(output.stdout, format!("open {target}\n"), "{output:?}");
        let (mut connection, from) = accepted.unwrap();
        assert_eq!(from.ip(), address);
        connection.shutdown().await.unwrap();
    }
    tokio::net::TcpStream::connect((address, 8080)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn two_nodes_run_side_by_side_and_leave_nothing_behind() {
    let (first, second) = (shared().await, Node::start_own().await);
    assert_ne!(first.address(), second.address());
    let namespace = second.namespace_restricted("own").await;
    let pod = restricted_pod("sleeper", second.probe_image().await, &["/probe", "wait"]);
    second.run(&namespace, &pod).await;

    let traces = |node: &Node| {
        let number = node.number;
        let groups = fs::read_to_string("/proc/mounts").unwrap();
        let groups = groups.lines().filter(|line| line.starts_with("cgroup"));
        let mut traces: Vec<_> = groups
            .map(|line| Path::new(line.split(' ').nth(1).unwrap()).join(format!("ostler-node-{number}")))
            .collect();
        traces.push(format!("/sys/class/net/ostler-node-{number}").into());
        traces.push(node.cluster.folder().to_owned());
        traces
    };
    let left = traces(&second);
    assert!(left.iter().all(|trace| trace.exists()), "{left:?}");
    drop(second);
    crate::cluster::eventually("nothing of it is left", async || {
        left.iter().all(|trace| !trace.exists()).then_some(())
    })
    .await;
    assert!(traces(first).iter().all(|trace| trace.exists()), "the other one is still there");
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
