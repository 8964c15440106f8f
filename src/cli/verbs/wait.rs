//! `ostler wait`.

use std::{process::ExitCode, str::FromStr, time::Duration};

use clap::Args;
use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use serde_json::Value;

use super::{
    Error, Out,
    reference::{self, ObjectArgs},
    refused,
};
use crate::{
    cli::{
        target::{Plane, TargetArgs},
        up::settings::duration,
    },
    kinds::{Kind, Object, ObjectId, Phase, condition::types},
    ports::Objects,
    telemetry::Chain,
};

/// Arguments of `ostler wait`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler wait run/fix-login --for=phase=Succeeded --timeout 20m
  ostler wait run/fix-login --for=condition=ResultRecorded
  ostler wait session/payments --for=condition=Ready=False
  ostler wait run/fix-login --for=delete
An object that is not there yet is waited for: it may still be on its way from a push.
Exit codes: 0 it is so, 1 the time is over or it cannot come any more, 2 ostler failed.")]
pub struct WaitArgs {
    #[command(flatten)]
    object: ObjectArgs,
    /// condition=TYPE[=STATUS], phase=PHASE (met once the run is or was in it), or delete
    #[arg(long = "for", value_name = "WHAT")]
    wanted: Wanted,
    /// The longest wait
    #[arg(long, value_parser = duration, default_value = "1h")]
    timeout: Duration,
    #[command(flatten)]
    target: TargetArgs,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Condition(String, String),
    Phase(Phase),
    Delete,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let status = |status: &str| {
            let known =
                ["True", "False", "Unknown"].into_iter().find(|word| word.eq_ignore_ascii_case(status));
            known.map(str::to_owned).ok_or_else(|| format!("{status:?} is none of True, False and Unknown"))
        };
        match text.split('=').collect::<Vec<_>>()[..] {
            ["delete"] => Ok(Self::Delete),
            ["condition", type_] if !type_.is_empty() => {
                Ok(Self::Condition(type_.to_owned(), "True".to_owned()))
            }
            ["condition", type_, wanted] if !type_.is_empty() => {
                Ok(Self::Condition(type_.to_owned(), status(wanted)?))
            }
            ["phase", phase] => serde_json::from_value(Value::from(phase))
                .map(Self::Phase)
                .map_err(|_| format!("{phase:?} is no phase of a run")),
            _ => Err("write condition=TYPE[=STATUS], phase=PHASE or delete".to_owned()),
        }
    }
}

/// Whether it is so.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    NotYet(String),
    Never(String),
}

impl Wanted {
    fn judge(&self, object: &Object) -> Verdict {
        match self {
            Self::Delete => Verdict::NotYet("it is still there".to_owned()),
            Self::Phase(wanted) => by_phase(*wanted, object),
            Self::Condition(type_, status) => by_condition(type_, status, object),
        }
    }

    fn absent(&self, was_there: bool) -> Verdict {
        match (self, was_there) {
            (Self::Delete, _) => Verdict::Met,
            (_, true) => Verdict::Never("it was deleted".to_owned()),
            (_, false) => Verdict::NotYet("it does not exist yet".to_owned()),
        }
    }
}

fn by_phase(wanted: Phase, object: &Object) -> Verdict {
    let history = object.data.pointer("/status/phaseHistory").and_then(Value::as_array);
    let mut was = history.into_iter().flatten().filter_map(|at| at["phase"].as_str());
    match phase(object) {
        Some(phase) if phase == wanted || was.any(|phase| phase == wanted.as_str()) => Verdict::Met,
        Some(phase) if phase.is_terminal() => {
            Verdict::Never(format!("it has ended as {phase}{}", why(object)))
        }
        Some(phase) => Verdict::NotYet(format!("it is {phase}{}", why(object))),
        None => Verdict::NotYet("it has no phase yet".to_owned()),
    }
}

fn by_condition(type_: &str, wanted: &str, object: &Object) -> Verdict {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    let old = |condition: &Value| {
        let observed = condition["observedGeneration"].as_i64();
        observed.zip(object.metadata.generation).is_some_and(|(observed, current)| observed < current)
    };
    let is = found.filter(|condition| !old(condition)).and_then(|condition| condition["status"].as_str());
    if is == Some(wanted) {
        return Verdict::Met;
    }
    let reason = found.and_then(|condition| condition["reason"].as_str()).unwrap_or_default();
    let stands = match is {
        Some(is) => format!("{type_} is {is} ({reason})"),
        None => format!("{type_} is not known"),
    };
    let ended = phase(object).is_some_and(Phase::is_terminal);
    // the recorder may still write these two after the end, until it gave up
    let open = matches!(type_, types::RESULT_RECORDED | types::PUSHED)
        && !matches!(reason, "Abandoned" | "NoRepository" | "PushNotRequested" | "NoChanges");
    if ended && !open {
        Verdict::Never(format!("{stands}, and the run has ended"))
    } else {
        Verdict::NotYet(stands)
    }
}

fn phase(object: &Object) -> Option<Phase> {
    serde_json::from_value(object.data.pointer("/status/phase")?.clone()).ok()
}

fn why(object: &Object) -> String {
    let reason = object.data.pointer("/status/reason").and_then(Value::as_str);
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

impl WaitArgs {
    pub(super) async fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let id = self.object.id()?;
        if matches!(self.wanted, Wanted::Phase(_)) && id.kind != Kind::HarnessRun {
            return Err(Error::Usage(format!("{} has no phase; wait for a condition", id.kind)));
        }
        let plane = Plane::find(&self.target).await?;
        let now = plane.objects().get(&id).await?;
        let first =
            now.as_ref().map_or_else(|| self.wanted.absent(false), |object| self.wanted.judge(object));
        let mut last = String::new();
        let verdict = match first {
            Verdict::NotYet(why) => {
                last = why;
                let watched = watch(plane.running()?, &id, &self.wanted, now.is_some(), &mut last);
                tokio::time::timeout(self.timeout, watched).await.ok().transpose()?
            }
            verdict => Some(verdict),
        };
        let short = reference::short(&id);
        match verdict {
            Some(Verdict::Met) => {
                writeln!(out, "{short}: met")?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(Verdict::Never(why) | Verdict::NotYet(why)) => eprintln!("{short}: cannot be met: {why}"),
            None => eprintln!("{short}: not met in {:?}: {last}", self.timeout),
        }
        Ok(ExitCode::from(1))
    }
}

/// Judges the object at each change, until that is final. `last` says how it stands.
async fn watch(
    objects: &dyn Objects,
    id: &ObjectId,
    wanted: &Wanted,
    mut was_there: bool,
    last: &mut String,
) -> Result<Verdict, Error> {
    let mut events = objects.watch(id.kind, Some(id.namespace.clone()));
    let (mut there, mut begun) = (None, false);
    let is_meant = |object: &Object| object.name_any() == id.name.as_str();
    while let Some(event) = events.next().await {
        begun |= matches!(event, Ok(Event::InitDone));
        let verdict = match event {
            Ok(Event::Init) => {
                there = None;
                continue;
            }
            Ok(Event::InitApply(object)) => {
                there = Some(object).filter(is_meant).or(there);
                continue;
            }
            Ok(Event::InitDone) => match there.take() {
                Some(object) => {
                    was_there = true;
                    wanted.judge(&object)
                }
                None => wanted.absent(was_there),
            },
            Ok(Event::Apply(object)) if is_meant(&object) => {
                was_there = true;
                wanted.judge(&object)
            }
            Ok(Event::Delete(object)) if is_meant(&object) => wanted.absent(true),
            Ok(_) => continue,
            Err(error) => {
                if !begun {
                    refused(&error)?;
                }
                Verdict::NotYet(format!("the control plane does not answer: {}", Chain(&error)))
            }
        };
        match verdict {
            Verdict::NotYet(why) => *last = why,
            verdict => return Ok(verdict),
        }
    }
    Ok(Verdict::Never("`ostler up` has ended".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(status: &Value) -> Object {
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"name": "a", "generation": 2}, "spec": {}, "status": status
        }))
        .unwrap()
    }

    fn judge(wanted: &str, status: &Value) -> char {
        match wanted.parse::<Wanted>().unwrap().judge(&run(status)) {
            Verdict::Met => 'y',
            Verdict::NotYet(_) => '?',
            Verdict::Never(_) => 'n',
        }
    }

    #[test]
    fn what_can_still_come_is_waited_for() {
        let condition = |type_: &str, status: &str, reason: &str, generation: i64| json!([{"type": type_, "status": status, "reason": reason, "observedGeneration": generation}]);
        let ended = |conditions: Value| json!({"phase": "Failed", "conditions": conditions});
        let cases = [
            ("phase=Running", json!({}), '?'),
            ("phase=Running", json!({"phase": "Running"}), 'y'),
            ("phase=Running", json!({"phase": "Failed", "phaseHistory": [{"phase": "Running"}]}), 'y'),
            ("phase=Succeeded", json!({"phase": "Running"}), '?'),
            ("phase=Succeeded", json!({"phase": "Failed"}), 'n'),
            ("condition=Ready", json!({"conditions": condition("Ready", "True", "Ready", 2)}), 'y'),
            ("condition=Ready", json!({"conditions": condition("Ready", "True", "Ready", 1)}), '?'),
            ("condition=Ready=false", json!({"conditions": condition("Ready", "True", "Ready", 2)}), '?'),
            ("condition=Succeeded", ended(condition("Succeeded", "False", "NonZeroExit", 2)), 'n'),
            ("condition=Succeeded=False", ended(condition("Succeeded", "False", "NonZeroExit", 2)), 'y'),
            ("condition=ResultRecorded", ended(json!([])), '?'),
            ("condition=ResultRecorded", ended(condition("ResultRecorded", "False", "Abandoned", 2)), 'n'),
            ("delete", json!({"phase": "Failed"}), '?'),
        ];
        for (wanted, status, expected) in cases {
            assert_eq!(judge(wanted, &status), expected, "{wanted} of {status}");
        }
    }

    #[test]
    fn what_is_not_there_may_come_but_not_come_back() {
        let ready: Wanted = "condition=Ready".parse().unwrap();
        assert!(matches!(ready.absent(false), Verdict::NotYet(_)));
        assert!(matches!(ready.absent(true), Verdict::Never(_)));
        assert_eq!(Wanted::Delete.absent(false), Verdict::Met);
    }

    #[test]
    fn what_nobody_can_wait_for_is_refused() {
        for text in
            ["", "phase", "phase=running", "condition=", "condition=A=maybe", "delete=1", "jsonpath={.a}"]
        {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
