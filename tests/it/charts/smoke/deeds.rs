//! What more than one role does, and what somebody does to them.

use futures::StreamExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use ostler::{
    kinds::{ConfigRepository, Kind, ObjectId, Reason},
    kubernetes::{
        lease::{self, Fence},
        objects::KubeObjects,
        secrets::KubeSecrets,
    },
    names::Namespace,
    ports::{
        Objects, Secrets,
        objects::{Happening, Severity},
        secrets::SecretUse,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Attempt, PAUSE, Smoke, until};
use crate::servers::repo::Repo;

impl Attempt<'_> {
    pub(super) fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.smoke.admin.clone(), &self.namespace)
    }

    /// Somebody makes an object.
    pub(super) async fn make<K>(&self, kind: &str, name: &str, more: Value) -> K
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let mut object =
            json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
        for (field, value) in more.as_object().unwrap() {
            object[field] = value.clone();
        }
        let object: K = serde_json::from_value(object).unwrap();
        self.objects().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(super) fn namespace(&self) -> Namespace {
        self.namespace.parse().unwrap()
    }

    /// Reads a Secret as a manifest that names it would have it read.
    pub(super) async fn secret(&self) -> Result<(), String> {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "token", "annotations": {"ostler.dev/use": "env"}}, "stringData": {"token": "t"},
        }))
        .unwrap();
        self.objects::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
        let secrets = KubeSecrets::new(self.smoke.client.clone());
        let mut changes = secrets.changes();
        let read = secrets.resolve(&self.namespace(), &"token".parse().unwrap(), SecretUse::Env, None).await;
        read.map_err(|error| error.to_string())?;
        let patch = Patch::Merge(json!({"stringData": {"token": "u"}}));
        self.objects::<Secret>().patch("token", &PatchParams::default(), &patch).await.unwrap();
        changes.next().await.map(drop).ok_or_else(|| "nobody tells that a Secret changes".to_owned())
    }

    /// Another one of this role stands by until the first one has renewed its lease.
    pub(super) async fn stand_by(&self) {
        let Smoke { client, home, role, .. } = self.smoke;
        let name = format!("ostler-{role}");
        let leases: Api<Lease> = Api::namespaced(self.smoke.admin.clone(), home);
        let renewed_at = async || Some(leases.get_opt(&name).await.unwrap()?.spec?.renew_time);
        let renewed = async {
            until(async || renewed_at().await.is_some()).await;
            let first = renewed_at().await;
            until(async || renewed_at().await != first).await;
        };
        tokio::select! {
            _ = lease::Lease::take(client.clone(), home, &name, "another", Fence::default()) => panic!("two lead"),
            () = renewed => {}
        }
    }

    /// Tells of something that happened to a repository.
    pub(super) async fn event(&self, about: &ConfigRepository) {
        let id: ObjectId = ostler::ports::objects::id_of(Kind::ConfigRepository, about).unwrap();
        let uid = about.metadata.uid.clone().unwrap().parse().unwrap();
        let objects = KubeObjects::new(self.smoke.client.clone());
        let severity = Severity::Normal;
        let message = "smoke".to_owned();
        let happening = Happening { about: id, uid, severity, reason: Reason::Contested, message };
        // the second one counts the first one up
        objects.tell(happening.clone()).await;
        objects.tell(happening).await;
        until(async || {
            let events = self.objects::<Event>().list(&ListParams::default()).await.unwrap();
            let told = |event: &Event| {
                event.note.as_deref() == Some("smoke") && event.series.as_ref().is_some_and(|s| s.count == 2)
            };
            events.items.iter().any(told)
        })
        .await;
    }

    pub(super) async fn follow(&self, repository: &Repo) -> ConfigRepository {
        self.make("ConfigRepository", "config", json!({"spec": {"url": repository.bare(), "interval": "1h"}}))
            .await
    }

    /// Returns when the audit log has what was asked before.
    pub(super) async fn lines_are_written(&self) {
        self.smoke.lines_are_written(self.since).await;
        // whoever waits for refusals reads it, too
        tokio::time::sleep(PAUSE * 3).await;
    }
}
