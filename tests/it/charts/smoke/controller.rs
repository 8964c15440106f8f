//! What the controller asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use ostler::{
    kinds::{Agent, ConfigRepository, EgressPolicy, HarnessRun, Session},
    kubernetes::{
        network::{NetworkPolicies, ProxySelector},
        secrets::KubeSecrets,
        workloads::KubeWorkloads,
    },
    names::Uid,
    ports::Workloads,
};
use serde_json::json;

use super::{Attempt, until};
use crate::{harness::world::shell, kubernetes::workloads::settings, servers::repo::Repo};

impl Attempt<'_> {
    pub(super) async fn controller(&self) -> Result<(), String> {
        let repository = Repo::with_readme();
        let agent = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "coder"},
            "spec": {"preset": "codex", "image": "registry.example.com/agent"}});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prompt"},
            "data": {"text": "Fix the login."}});
        let session = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "Session", "metadata": {"name": "work"},
            "spec": {"agentRef": {"name": "coder"}}});
        let policy = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "EgressPolicy", "metadata": {"name": "out"},
            "spec": {"rules": [{"name": "git", "hosts": ["git.example.com"]}]}});
        let run = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun", "metadata": {"name": "fix"},
            "spec": {"sessionRef": {"name": "work"}, "task": {"prompt": "Fix the login."}}});
        let files = [
            ("agent.yaml", agent),
            ("map.yaml", map),
            ("session.yaml", session),
            ("policy.yaml", policy),
            ("run.yaml", run),
        ];
        let files = files.map(|(file, content)| (file, format!("{content}\n")));
        repository.push(&files.each_ref().map(|(file, content)| (*file, content.as_str())), "everything");
        let followed = self.follow(&repository).await;
        let _controller = self.start_controller();
        until(async || {
            let session = self.objects::<Session>().get_opt("work").await.unwrap();
            let run = self.objects::<HarnessRun>().get_opt("fix").await.unwrap();
            let applied = self.objects::<Agent>().get_opt("coder").await.unwrap().is_some()
                && self.objects::<ConfigMap>().get_opt("prompt").await.unwrap().is_some()
                && self.objects::<EgressPolicy>().get_opt("out").await.unwrap().is_some()
                && run.is_some_and(|run| run.status.is_some());
            let now = self.objects::<ConfigRepository>().get("config").await.unwrap();
            let told = now.status.is_some_and(|status| status.last_applied.is_some());
            applied && told && session.is_some_and(|session| session.status.is_some())
        })
        .await;
        for (file, _) in files {
            std::fs::remove_file(repository.work().join(file)).unwrap();
        }
        // from a tree without any object nothing would be pruned
        let stays = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stays"}});
        repository.push(&[("stays.yaml", &format!("{stays}\n"))], "less");
        until(async || {
            self.objects::<ConfigMap>().get_opt("prompt").await.unwrap().is_none()
                && self.objects::<Agent>().get_opt("coder").await.unwrap().is_none()
                && self.objects::<EgressPolicy>().get_opt("out").await.unwrap().is_none()
                && self.objects::<HarnessRun>().get_opt("fix").await.unwrap().is_none()
                && self.objects::<Session>().get_opt("work").await.unwrap().is_none()
        })
        .await;
        self.event(&followed).await;
        self.secret().await?;
        self.place().await?;
        // last, as it takes the time between two renewals
        self.stand_by().await;
        Ok(())
    }

    /// A run's place, from the policy that confines it to the end of its workspace.
    async fn place(&self) -> Result<(), String> {
        let client = self.smoke.client.clone();
        let text = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
        let labels = [("app.kubernetes.io/component".to_owned(), "proxy".to_owned())].into();
        let namespace = self.smoke.home.parse().unwrap();
        let policies = NetworkPolicies::new(client.clone(), &ProxySelector { namespace, labels, port: 8443 });
        policies.ensure(&self.namespace()).await.map_err(|error| text(&error))?;

        let secrets = Arc::new(KubeSecrets::new(client.clone()));
        let places = KubeWorkloads::start(client, settings(&self.namespace()), secrets)
            .await
            .map_err(|error| text(&error))?;
        let mut spec = shell("true");
        spec.run.namespace = self.namespace();
        spec.image = Some("registry.example.com/agent".to_owned());
        let session: Uid = uuid::Uuid::new_v4().to_string().parse().unwrap();
        spec.persistent_workspace = Some(session.clone());
        let uid = spec.run.uid.clone();
        places.ensure(&spec).await.map_err(|error| text(&error))?;
        let found = places.find(&spec.run).await.map_err(|error| text(&error))?;
        assert!(found.is_some(), "a place that was made is found");
        // the workspace of the session is there already
        let mut second = spec.clone();
        second.run.name = "again".parse().unwrap();
        second.run.uid = uuid::Uuid::new_v4().to_string().parse().unwrap();
        places.ensure(&second).await.map_err(|error| text(&error))?;
        places.confirm(&uid).await.map_err(|error| text(&error))?;
        self.complain(&places, &uid).await;
        // There is no node to open it: what RBAC refuses is in the audit log.
        assert!(places.open(&uid).await.is_err());
        self.lines_are_written().await;
        places.remove(&uid).await.map_err(|error| text(&error))?;
        places.remove(&second.run.uid).await.map_err(|error| text(&error))?;
        places.remove_workspace(&session).await.map_err(|error| text(&error))
    }

    /// A node takes the pod and cannot start it: the run's place tells what the cluster says about it.
    async fn complain(&self, places: &KubeWorkloads, run: &Uid) {
        let place = places.observe(run).await.unwrap().unwrap();
        let (pods, events) = (self.objects::<Pod>(), self.objects::<Event>());
        let scheduled = json!({"type": "PodScheduled", "status": "True"});
        let status = Patch::Strategic(json!({"status": {"conditions": [scheduled]}}));
        pods.patch_status(&place.name, &PatchParams::default(), &status).await.unwrap();
        let event = json!({"metadata": {"name": "complaint"}, "type": "Warning", "reason": "FailedMount",
            "message": "no such disk", "lastTimestamp": jiff::Timestamp::now(),
            "involvedObject": {"kind": "Pod", "namespace": self.namespace, "name": place.name, "uid": place.uid}});
        events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
        until(async || {
            let place = places.observe(run).await.unwrap().unwrap();
            place.trouble.is_some_and(|trouble| trouble.message.contains("(FailedMount): no such disk"))
        })
        .await;
    }
}
