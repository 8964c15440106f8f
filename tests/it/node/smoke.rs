//! The node keeps the fixture's promises.

use super::{restricted_pod, shared};

#[tokio::test]
#[ignore = "needs root and a node: make test-node"]
async fn a_restricted_pod_of_each_image_runs() {
    let node = shared().await;
    let namespace = node.namespace_restricted("images").await;
    let pods = [
        ("probe", node.probe_image().await, &["/probe", "wait"][..]),
        ("busybox", node.busybox_image().await, &["sleep", "1000000"]),
        ("debian", node.debian_image().await, &["sleep", "1000000"]),
    ];
    for (name, image, command) in pods {
        node.run(&namespace, &restricted_pod(name, image, command)).await;
    }
}
