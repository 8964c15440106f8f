//! The suite on a real API server, by an ostler that may `get` and `watch` Secrets but never `list` them.

use k8s_openapi::api::{core::v1::Secret, rbac::v1::PolicyRule};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use ostler::kubernetes::secrets::KubeSecrets;
use serde_json::json;

use super::*;
use crate::{
    cluster,
    contract::rbac::{self, To},
};

struct Cluster {
    secrets: KubeSecrets,
    admin: Client,
    ostler: String,
    namespaces: [Namespace; 2],
}

impl Cluster {
    /// Two namespaces, and an ostler with these rights on their Secrets.
    async fn new(rights: &PolicyRule) -> Self {
        let cluster = cluster::shared().await;
        let admin = cluster.client().await;
        let namespaces = [cluster.namespace("secrets").await, cluster.namespace("others").await];
        let ostler = format!("ostler-of-{}", namespaces[0]);
        for namespace in &namespaces {
            rbac::grant(&admin, namespace, "ostler", To::User(&ostler), rights.clone()).await;
        }
        let secrets = KubeSecrets::new(cluster.user(&ostler, &[]).await);
        Self { secrets, admin, ostler, namespaces: namespaces.map(|name| name.parse().unwrap()) }
    }

    fn api(&self, namespace: &Namespace) -> Api<Secret> {
        Api::namespaced(self.admin.clone(), namespace.as_str())
    }
}

#[async_trait]
impl Ground for Cluster {
    fn secrets(&self) -> &dyn Secrets {
        &self.secrets
    }

    fn namespaces(&self) -> [Namespace; 2] {
        self.namespaces.clone()
    }

    async fn put(&self, draft: &Draft) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": draft.name, "annotations": draft.annotations},
            "stringData": {"token": draft.token},
        });
        let params = PatchParams::apply("tests");
        self.api(&draft.namespace).patch(draft.name.as_str(), &params, &Patch::Apply(secret)).await.unwrap();
    }

    async fn delete(&self, namespace: &Namespace, name: &ObjectName) {
        self.api(namespace).delete(name.as_str(), &DeleteParams::default()).await.unwrap();
    }
}

fn get_and_watch() -> PolicyRule {
    rbac::rule("", "secrets", &["get", "watch"])
}

suite!(Cluster::new(&get_and_watch()));

#[tokio::test]
async fn names_in_the_role_are_enough_and_others_are_forbidden() {
    let rights = PolicyRule { resource_names: Some(vec!["late".to_owned()]), ..get_and_watch() };
    let ground = Cluster::new(&rights).await;
    super::changes_are_told(&ground).await;
    ground.put(&draft(&ground, "foreign", &[("ostler.dev/use", "env")], "one")).await;
    let error = resolve(&ground, "foreign", SecretUse::Env, None).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient, "a role may come");
}

#[tokio::test]
async fn without_the_verb_watch_changes_are_found_later() {
    let ground = Cluster::new(&rbac::rule("", "secrets", &["get"])).await;
    super::changes_are_told(&ground).await;
}

#[tokio::test]
async fn what_nobody_references_is_never_asked_for_and_nothing_is_listed() {
    let ground = Cluster::new(&get_and_watch()).await;
    ground.put(&draft(&ground, "unreferenced", &[("ostler.dev/use", "env")], "one")).await;
    super::changes_are_told(&ground).await;
    let ostler = ground.ostler.clone();
    // a watch is in the log when it ends
    drop(ground);
    let ours = |line: &&cluster::AuditLine| line.user.username == ostler;
    let asked = cluster::shared()
        .await
        .audit_until(|lines| lines.iter().filter(ours).any(|line| line.verb == "watch"))
        .await;
    for line in asked.iter().filter(ours) {
        assert!(matches!(line.verb.as_str(), "get" | "watch"), "{line:?}");
        let one =
            line.object_ref.name == "late" || line.request_uri.contains("fieldSelector=metadata.name%3Dlate");
        assert!(one, "{line:?}");
    }
}

#[tokio::test]
async fn changes_are_told_across_a_restart_of_the_api_server() {
    let own = cluster::Cluster::start_own().await;
    let namespaces = [own.namespace("secrets").await, own.namespace("others").await];
    let namespaces = namespaces.map(|name| name.parse().unwrap());
    let client = own.client().await;
    let ground = Cluster {
        secrets: KubeSecrets::new(client.clone()),
        admin: client,
        ostler: "admin".to_owned(),
        namespaces,
    };
    ground.put(&draft(&ground, "a", &[("ostler.dev/use", "env")], "one")).await;
    assert_eq!(resolve(&ground, "a", SecretUse::Env, None).await.unwrap(), "one");
    let mut changes = ground.secrets().changes();
    own.stop_api_server().await;
    let error = resolve(&ground, "a", SecretUse::Env, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    own.start_api_server().await;
    ground.put(&draft(&ground, "a", &[("ostler.dev/use", "env")], "two")).await;
    told(&mut changes, &ground, "a").await;
    assert_eq!(resolve(&ground, "a", SecretUse::Env, None).await.unwrap(), "two");
}
