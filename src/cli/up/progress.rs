//! What `ostler up` shows: one line for each thing that happens. Lines, so that logs and pipes read as well as people.

use futures::StreamExt;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::roles::Roles;
use crate::{
    cache::Caches,
    kinds::{
        ConfigRepository, HarnessRun,
        condition::{self, types},
    },
};

/// Shows what happens until `stop`.
pub(super) fn show(roles: &Roles, as_json: bool, stop: CancellationToken) -> JoinHandle<()> {
    let caches = roles.caches.clone();
    let address = roles.api;
    let token = roles.api_token.display().to_string();
    tokio::spawn(async move {
        if as_json {
            println!(
                "{}",
                json!({"what": "listening", "api": format!("http://{address}"), "tokenFile": token})
            );
        } else {
            println!("api        http://{address} (token in {token})");
        }
        let mut seen = Seen::default();
        let mut repositories = caches.repositories.touched().boxed();
        let mut runs = caches.runs.touched().boxed();
        seen.all(&caches, as_json);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(touched) = repositories.next() => {
                    if let Some(repository) = caches.repositories.reader().get(&touched) {
                        seen.repository(&repository, as_json);
                    }
                }
                Some(touched) = runs.next() => seen.look(&touched, &caches, as_json),
            }
        }
        // what happened while the end was decided
        seen.all(&caches, as_json);
    })
}

/// What was shown last, so that nothing is shown twice.
#[derive(Default)]
struct Seen {
    repositories: std::collections::BTreeMap<String, String>,
    runs: std::collections::BTreeMap<String, String>,
}

impl Seen {
    fn all(&mut self, caches: &Caches, as_json: bool) {
        for repository in caches.repositories.all() {
            self.repository(&repository, as_json);
        }
        for run in caches.runs.all() {
            self.run(&run, as_json);
        }
    }

    fn look(&mut self, touched: &ObjectRef<HarnessRun>, caches: &Caches, as_json: bool) {
        if let Some(run) = caches.runs.reader().get(touched) {
            self.run(&run, as_json);
        } else {
            let name = format!("{}/{}", touched.namespace.clone().unwrap_or_default(), touched.name);
            if self.runs.remove(&name).is_some() {
                line(as_json, "run", &name, "Removed", "");
            }
        }
    }

    fn repository(&mut self, repository: &ConfigRepository, as_json: bool) {
        let name = format!("{}/{}", repository.namespace().unwrap_or_default(), repository.name_any());
        let conditions = repository.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let Some(ready) = condition::get(conditions, types::READY) else { return };
        let commit =
            repository.status.as_ref().and_then(|s| s.last_applied.as_ref()).map(|a| a.commit.as_str());
        let short: String = commit.unwrap_or_default().chars().take(12).collect();
        let text = format!("{short} {}", ready.message).trim().to_owned();
        if self.repositories.insert(name.clone(), format!("{}{text}", ready.reason)).as_ref()
            != Some(&format!("{}{text}", ready.reason))
        {
            line(as_json, "repository", &name, &ready.reason, &text);
        }
    }

    fn run(&mut self, run: &HarnessRun, as_json: bool) {
        let name = format!("{}/{}", run.namespace().unwrap_or_default(), run.name_any());
        let Some(status) = &run.status else { return };
        let (Some(phase), Some(reason)) = (status.phase, status.reason) else { return };
        let message = status.message.clone().unwrap_or_default();
        let recorded = status.result.as_ref().and_then(|r| r.commit.as_deref()).unwrap_or_default();
        let state = format!("{phase} {reason} {message} {recorded}");
        if self.runs.insert(name.clone(), state.clone()).as_ref() == Some(&state) {
            return;
        }
        let mut text = if message.is_empty() { reason.to_string() } else { format!("{reason}: {message}") };
        if phase.is_terminal() && !recorded.is_empty() {
            text = format!("{text} (recorded in {})", &recorded[..recorded.len().min(12)]);
        }
        line(as_json, "run", &name, phase.as_str(), &text);
    }
}

fn line(as_json: bool, what: &str, name: &str, state: &str, text: &str) {
    if as_json {
        println!("{}", json!({"what": what, "name": name, "state": state, "text": text}));
    } else {
        println!("{what:<10} {name:<40} {state:<12} {text}");
    }
}
