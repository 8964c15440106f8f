//! `ostler reconcile`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use kube::{ResourceExt, runtime::watcher::Event};
use serde_json::json;

use super::{Error, Out, printable, reference, refused};
use crate::{
    cli::{
        target::{Plane, TargetArgs},
        up::settings::duration,
    },
    kinds::{ConfigRepository, Kind, Object, ObjectId, condition, meta},
    names::{CommitId, Namespace, ObjectName},
    ports::objects::{self, At, id_of, typed},
};

/// Arguments of `ostler reconcile`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler reconcile                      fetch and apply the only repository now, and say how that went
  ostler reconcile config --no-wait
  ostler reconcile --allow-prune $(git rev-parse main)   let this one commit delete more than the caps allow
Exit codes: 0 applied, 1 not applied (or not in time), 2 ostler failed.")]
pub struct ReconcileArgs {
    /// The ConfigRepository; default: the only one
    #[arg(value_parser = repository_name)]
    repository: Option<ObjectName>,
    /// Its namespace; default: any, when it is the only one
    #[arg(short, long)]
    namespace: Option<Namespace>,
    /// Let this commit delete more objects than spec.prune allows
    #[arg(long, value_name = "COMMIT")]
    allow_prune: Option<CommitId>,
    /// Ask, and do not wait
    #[arg(long)]
    no_wait: bool,
    /// The longest wait
    #[arg(long, value_parser = duration, default_value = "5m")]
    timeout: Duration,
    #[command(flatten)]
    target: TargetArgs,
}

/// A repository's name, also as `configrepository/NAME`.
fn repository_name(text: &str) -> Result<ObjectName, String> {
    let name = match text.split_once('/') {
        Some((kind, name)) if Kind::from_typed_name(kind) == Some(Kind::ConfigRepository) => name,
        _ => text,
    };
    name.parse().map_err(|error: crate::names::InvalidName| error.to_string())
}

impl ReconcileArgs {
    pub(super) async fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let plane = Plane::find(&self.target).await?;
        let store = plane.running()?;
        let listed = store.list(Kind::ConfigRepository, self.namespace.as_ref()).await;
        let listed = match (listed, &self.namespace) {
            (Err(objects::Error::Forbidden(why)), None) => {
                return Err(Error::Usage(format!("{why}; name the namespace that you may read with -n")));
            }
            (listed, _) => listed?,
        };
        let (id, repository) = pick(listed, self.repository.as_ref())?;
        let short = reference::short(&id);
        let asked = Timestamp::now().to_string();
        let mut annotations = json!({ meta::RECONCILE_REQUESTED_AT: asked });
        if let Some(commit) = &self.allow_prune {
            annotations[meta::ALLOW_PRUNE] = commit.as_str().into();
        }
        let at = At::of(&repository).ok_or_else(|| Error::NotFound(id.clone()))?.any_version();
        let mut events = store.watch(Kind::ConfigRepository, Some(id.namespace.clone()));
        store.merge(&id, &at, &json!({"metadata": {"annotations": annotations}}), meta::CLI).await?;
        if self.no_wait {
            writeln!(out, "{short}: asked")?;
            return Ok(ExitCode::SUCCESS);
        }
        let handled = async {
            let mut begun = false;
            while let Some(event) = events.next().await {
                let object = match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => object,
                    Err(error) if !begun => {
                        refused(&error)?;
                        continue;
                    }
                    other => {
                        begun |= matches!(other, Ok(Event::InitDone));
                        continue;
                    }
                };
                if object.name_any() == id.name.as_str() && is_handled(&object, &asked) {
                    return Ok::<_, Error>(Some(object));
                }
            }
            Ok(None)
        };
        match tokio::time::timeout(self.timeout, handled).await.map(Result::transpose).ok() {
            Some(Some(object)) => tell(&short, object?, out),
            Some(None) => Err(Error::Refused("`ostler up` has ended".to_owned())),
            None => {
                eprintln!("{short}: not handled in {:?}; is it suspended?", self.timeout);
                Ok(ExitCode::from(1))
            }
        }
    }
}

fn is_handled(repository: &Object, asked: &str) -> bool {
    repository.data.pointer("/status/lastHandledReconcileAt").and_then(|at| at.as_str()) == Some(asked)
}

/// The repository that is meant.
fn pick(listed: Vec<Object>, name: Option<&ObjectName>) -> Result<(ObjectId, Object), Error> {
    let known =
        listed.into_iter().filter_map(|object| Some((id_of(Kind::ConfigRepository, &object)?, object)));
    let mut found: Vec<_> = known.filter(|(id, _)| name.is_none_or(|name| id.name == *name)).collect();
    match (found.len(), name) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(name)) => Err(Error::Usage(format!("there is no ConfigRepository {name}"))),
        (0, None) => Err(Error::Usage("there is no ConfigRepository".to_owned())),
        _ => {
            let names: Vec<String> =
                found.iter().map(|(id, _)| format!("{} -n {}", id.name, id.namespace)).collect();
            Err(Error::Usage(format!("which ConfigRepository? One of: {}", names.join(", "))))
        }
    }
}

/// How it went.
fn tell(short: &str, object: Object, out: Out<'_>) -> Result<ExitCode, Error> {
    let repository: ConfigRepository = typed(object)?;
    let status = repository.status.unwrap_or_default();
    let applied = status.last_applied.as_ref();
    let applied = applied
        .map_or_else(String::new, |applied| format!("{} with {} objects", applied.commit, applied.objects));
    let ready = condition::get(&status.conditions, condition::types::READY);
    match ready.filter(|ready| ready.status != "True") {
        None => {
            writeln!(out, "{short}: applied {applied}")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(ready) => {
            let in_force = if applied.is_empty() { String::new() } else { format!("; in force: {applied}") };
            writeln!(out, "{short}: {}: {}{in_force}", ready.reason, printable(&ready.message))?;
            Ok(ExitCode::from(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(namespace: &str, name: &str) -> Object {
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
            "metadata": {"namespace": namespace, "name": name}, "spec": {"url": "/r"},
            "status": {"lastHandledReconcileAt": "then"}
        }))
        .unwrap()
    }

    #[test]
    fn the_only_one_is_meant() {
        let picked = |listed: &[Object], name: Option<&str>| {
            pick(listed.to_vec(), name.map(|name| name.parse().unwrap()).as_ref())
                .map(|(id, _)| id.to_string())
        };
        let (a, b) = (repository("x", "a"), repository("y", "b"));
        assert_eq!(picked(std::slice::from_ref(&a), None).unwrap(), "ConfigRepository x/a");
        assert_eq!(picked(&[a.clone(), b.clone()], Some("b")).unwrap(), "ConfigRepository y/b");
        let error = picked(&[a, b], None).unwrap_err().to_string();
        assert!(error.contains("a -n x, b -n y"), "{error}");
        assert!(picked(&[], None).is_err());
    }

    #[test]
    fn only_this_request_counts() {
        assert!(is_handled(&repository("x", "a"), "then"));
        assert!(!is_handled(&repository("x", "a"), "now"));
    }
}
