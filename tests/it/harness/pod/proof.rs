//! Without a proof nothing starts.

use std::net::IpAddr;

use ostler::{kinds::Reason, report::End};

use tokio_util::task::AbortOnDropHandle;

use super::world::{Pod, Settings, ended};
use crate::harness::world::{FakeSecrets, shell};

async fn refused(settings: Settings) -> (Reason, String) {
    let mut pod = Pod::start_with(&shell("touch started"), FakeSecrets::default(), settings).await;
    let delivery = pod.delivered().await;
    let End::NotStarted { reason, message } = delivery.report.end else {
        panic!("{:?}", delivery.report.end)
    };
    assert_eq!(delivery.report.egress_proof, None);
    assert!(!pod.at("place/workspace/started").exists());
    assert_eq!(ended(pod.shim.as_mut().unwrap()).await.code(), Some(1), "its container ends all the same");
    (reason, message)
}

#[tokio::test]
async fn a_canary_that_can_be_reached_is_no_proof() {
    let (reason, message) = refused(Settings { leak: true, proof_seconds: 20, ..Settings::default() }).await;
    assert_eq!(reason, Reason::EgressNotEnforced);
    assert!(message.contains("these addresses answer: [127.0.0.1:"), "{message}");
}

/// A node that answers on the port of its kubelet.
async fn node() -> (IpAddr, AbortOnDropHandle<()>) {
    loop {
        let [a, b, c, ..] = *uuid::Uuid::new_v4().as_bytes();
        let address = IpAddr::from([127, a | 1, b, c | 1]);
        if let Ok(listener) = tokio::net::TcpListener::bind((address, 10250)).await {
            let answer = async move { while listener.accept().await.is_ok() {} };
            return (address, AbortOnDropHandle::new(tokio::spawn(answer)));
        }
    }
}

#[tokio::test]
async fn a_node_that_can_be_reached_is_no_proof_unless_that_is_allowed() {
    let (node, _listening) = node().await;
    let (reason, message) = refused(Settings { node, proof_seconds: 20, ..Settings::default() }).await;
    assert_eq!(reason, Reason::NodeReachable);
    assert!(message.contains(&format!("{node}:10250")), "{message}");

    let settings = Settings { node, allow_node_reach: true, ..Settings::default() };
    let pod = Pod::start_with(&shell("true"), FakeSecrets::default(), settings).await;
    let delivery = pod.delivered().await;
    assert_eq!(delivery.report.end, End::Exited { code: 0 });
    assert!(delivery.report.egress_proof.unwrap().contains("which is allowed"));
}
