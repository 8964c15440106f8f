//! The network policy of a namespace, on a real API server.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use ostler::kubernetes::network::{Error, NAME, NetworkPolicies, ProxySelector};
use serde_json::{Value, json};

use super::stage::eventually;
use crate::cluster;

fn proxy() -> ProxySelector {
    let labels = [("app.kubernetes.io/component".to_owned(), "proxy".to_owned())].into();
    ProxySelector { namespace: "ostler-system".parse().unwrap(), labels, port: 8443 }
}

fn spec(policy: &NetworkPolicy) -> Value {
    serde_json::to_value(policy.spec.as_ref().unwrap()).unwrap()
}

fn wanted() -> Value {
    json!({
        "podSelector": {"matchLabels": {"ostler.dev/role": "agent"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{
            "to": [{
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ostler-system"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "proxy"}},
            }],
            "ports": [{"protocol": "TCP", "port": 8443}],
        }],
    })
}

#[tokio::test]
async fn it_is_written_once_and_put_back_whenever_somebody_changes_it() {
    let cluster = cluster::shared().await;
    let client = cluster.client().await;
    let name = cluster.namespace("network").await;
    let policies = NetworkPolicies::new(client.clone(), &proxy());
    policies.ensure(&name.parse().unwrap()).await.unwrap();
    let api: Api<NetworkPolicy> = Api::namespaced(client, &name);
    let made = api.get(NAME).await.unwrap();
    assert_eq!(spec(&made), wanted());
    policies.ensure(&name.parse().unwrap()).await.unwrap();
    assert_eq!(api.get(NAME).await.unwrap().metadata.resource_version, made.metadata.resource_version);

    let wide = Patch::Merge(json!({"spec": {"egress": [{}]}}));
    let loosened = api.patch(NAME, &PatchParams::default(), &wide).await.unwrap();
    assert_ne!(spec(&loosened), wanted(), "somebody could change it");
    let right = async || api.get_opt(NAME).await.unwrap().filter(|policy| spec(policy) == wanted());
    eventually("it is put right", right).await;
    policies.ensure(&name.parse().unwrap()).await.unwrap();

    api.delete(NAME, &DeleteParams::default()).await.unwrap();
    eventually("it is made again", right).await;
}

#[tokio::test]
async fn what_is_wrong_before_us_is_put_right_and_other_namespaces_are_left_alone() {
    let cluster = cluster::shared().await;
    let client = cluster.client().await;
    let (ours, theirs) = (cluster.namespace("ours").await, cluster.namespace("theirs").await);
    let open = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": NAME},
        "spec": {"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]}});
    for namespace in [&ours, &theirs] {
        let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
        api.patch(NAME, &PatchParams::apply("somebody"), &Patch::Apply(&open)).await.unwrap();
    }
    let policies = NetworkPolicies::new(client.clone(), &proxy());
    policies.ensure(&ours.parse().unwrap()).await.unwrap();
    let get =
        async |namespace: &str| Api::<NetworkPolicy>::namespaced(client.clone(), namespace).get(NAME).await;
    assert_eq!(spec(&get(&ours).await.unwrap()), wanted());
    assert_eq!(spec(&get(&theirs).await.unwrap())["egress"], json!([{}]));
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_told() {
    let policies = NetworkPolicies::new(cluster::shared().await.client().await, &proxy());
    let error = policies.ensure(&"no-such-namespace".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&error, Error::Apply { .. }), "{error:?}");
    assert!(error.to_string().contains("no-such-namespace"), "{error}");
}
