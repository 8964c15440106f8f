//! What those ask for that others speak to: the recorder, the API and the proxy.

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use ostler::{
    kinds::{Agent, ConfigRepository, EgressPolicy, HarnessRun, Kind, Session},
    kubernetes::{callers::KubeCallers, objects::KubeObjects},
    ports::{Objects, objects::id_of},
    proxy::gateway::Callers,
    resolve,
};
use secrecy::SecretString;
use serde_json::json;

use super::{Attempt, process::listening, until};
use crate::{contract::rbac, servers::repo::Repo};

impl Attempt<'_> {
    pub(super) async fn recorder(&self) -> Result<(), String> {
        let repository = Repo::with_readme();
        let followed = self.follow(&repository).await;
        let (recorder, certificate) = self.start_recorder();
        until(async || {
            let now = self.objects::<ConfigRepository>().get("config").await.unwrap();
            now.status.is_some_and(|status| status.conditions.iter().any(|c| c.type_ == "LedgerReady"))
        })
        .await;
        self.claim().await;
        // Somebody who is nobody delivers a result: the API server is asked who it is.
        let address =
            recorder.text().lines().find_map(listening).ok_or("it does not say where it listens")?;
        let trusted = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
        let web = reqwest::Client::builder().tls_certs_only([trusted]).build().unwrap();
        let path = format!("{address}/api/v1/runs/{}/run/result", self.namespace);
        let answer = web.put(path).bearer_auth("nonsense").send().await.map_err(|error| error.to_string())?;
        self.lines_are_written().await;
        let (asked, _) = self.smoke.cluster.audit_from(self.since);
        let asked =
            asked.iter().any(|l| l.is_of(&[&self.smoke.user]) && l.object_ref.resource == "tokenreviews");
        if !asked {
            return Err(format!("the recorder answered {} and asked nobody", answer.status()));
        }
        self.read_after_a_conflict(&followed).await?;
        self.event(&followed).await;
        self.secret().await?;
        self.stand_by().await;
        Ok(())
    }

    /// What it reads again when somebody else wrote a status first, which cannot be brought about at will.
    async fn read_after_a_conflict(&self, repository: &ConfigRepository) -> Result<(), String> {
        let objects = KubeObjects::new(self.smoke.client.clone());
        let run = self.objects::<HarnessRun>().get("fix").await.unwrap();
        for id in [id_of(Kind::ConfigRepository, repository), id_of(Kind::HarnessRun, &run)] {
            let found = objects.get(&id.unwrap()).await.map_err(|error| error.to_string())?;
            assert!(found.is_some());
        }
        Ok(())
    }

    /// A run asks for its claim and gets it.
    async fn claim(&self) {
        let run: HarnessRun =
            self.make("HarnessRun", "fix", json!({"spec": {"task": {"prompt": "Fix the login."}}})).await;
        let digest = resolve::digest_of(&run, &resolve::World::default()).unwrap();
        let now = jiff::Timestamp::now();
        let status = json!({"status": {"phase": "Queued", "reason": "ClaimRequested", "digest": digest,
            "claim": {"requestedAt": now}}});
        let patch = Patch::Merge(status);
        self.objects::<HarnessRun>().patch_status("fix", &PatchParams::default(), &patch).await.unwrap();
        until(async || {
            let status = self.objects::<HarnessRun>().get("fix").await.unwrap().status.unwrap_or_default();
            status.claim.is_some_and(|claim| claim.holder.is_some())
        })
        .await;
    }

    pub(super) async fn api(&self) -> Result<(), String> {
        let _: Session = self.make("Session", "work", json!({"spec": {}})).await;
        let _: HarnessRun = self.make("HarnessRun", "fix", json!({"spec": {}})).await;
        let _: Agent = self.make("Agent", "coder", json!({"spec": {"preset": "codex"}})).await;
        let _: EgressPolicy = self.make("EgressPolicy", "out", json!({"spec": {}})).await;
        let _: ConfigRepository =
            self.make("ConfigRepository", "config", json!({"spec": {"url": "/srv/config"}})).await;
        let request = json!({"spec": {"audiences": ["ostler"]}});
        let request = serde_json::from_value(request).unwrap();
        let accounts = self.objects::<ServiceAccount>();
        let token = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
        let token = token.status.unwrap().token;
        let reader = format!("system:serviceaccount:{}:default", self.namespace);
        let mut rule = rbac::rule("ostler.dev", "sessions", &["list", "get"]);
        let others = ["configrepositories", "harnessruns", "agents", "egresspolicies"];
        rule.resources.as_mut().unwrap().extend(others.map(str::to_owned));
        let to = rbac::To::User(&reader);
        rbac::grant(&self.smoke.admin, &self.namespace, "reader", to, rule).await;
        let api = self.process(&[&["--listen", "127.0.0.1:0"]]);
        until(async || api.text().lines().any(|line| listening(line).is_some())).await;
        let address = api.text().lines().find_map(listening).unwrap();
        let shown = [
            ("sessions", "work"),
            ("runs", "fix"),
            ("agents", "coder"),
            ("policies", "out"),
            ("repositories", "config"),
        ];
        let web = reqwest::Client::new();
        for (kind, name) in shown {
            let list = format!("{address}/api/v1/{kind}/{}", self.namespace);
            for url in [format!("{list}/{name}"), list] {
                let answer = web.get(&url).bearer_auth(&token).send().await;
                let status = answer.map_err(|error| error.to_string())?.status();
                if status != 200 {
                    self.lines_are_written().await;
                    return Err(format!("the API answers {status} for {url}"));
                }
            }
        }
        self.lines_are_written().await;
        Ok(())
    }

    pub(super) async fn proxy(&self) -> Result<(), String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "run", "labels": {"ostler.dev/role": "agent"}},
            "spec": {"containers": [{"name": "agent", "image": "registry.example.com/agent"}]},
        }))
        .unwrap();
        let pods = self.objects::<Pod>();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let address = "127.0.0.9";
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        let patch = Patch::Merge(status);
        pods.patch_status("run", &PatchParams::default(), &patch).await.unwrap();
        let callers = KubeCallers::new(self.smoke.client.clone(), vec![]);
        until(async || callers.is_ready()).await;
        let token = SecretString::from("nonsense".to_owned());
        assert!(callers.identify(&token, "ostler-egress", address.parse().unwrap()).await.is_err());
        self.lines_are_written().await;
        pods.delete("run", &DeleteParams::default().grace_period(0)).await.unwrap();
        let (asked, _) = self.smoke.cluster.audit_from(self.since);
        let asked =
            asked.iter().any(|l| l.is_of(&[&self.smoke.user]) && l.object_ref.resource == "tokenreviews");
        if !asked {
            return Err("nobody was asked whose token it is".to_owned());
        }
        self.secret().await
    }
}
