//! `ostler describe`.

mod repository;
mod run;

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde_json::Value;

use super::{
    Error, Out, get, printable,
    reference::{self, ObjectArgs},
};
use crate::{
    cli::{
        columns::{age, align},
        target::{Plane, TargetArgs},
    },
    kinds::{Kind, Object, ObjectId, meta},
    ports::objects::{self, Told, typed},
};

/// Arguments of `ostler describe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler describe run fix-login
  ostler describe configrepository/config   what is applied, and every error of a file")]
pub struct DescribeArgs {
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    target: TargetArgs,
}

impl DescribeArgs {
    pub(super) async fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let id = self.object.id()?;
        let plane = Plane::find(&self.target).await?;
        let object = reference::read(plane.objects(), &id).await?;
        // whoever may not read events may still read the object
        let events = match plane.objects().events(&id).await {
            Err(objects::Error::Forbidden(why)) => {
                eprintln!("events are left out: {why}");
                Vec::new()
            }
            read => read?,
        };
        out.write_all(printable(&describe(&id, object, &events, Timestamp::now())?).as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Most characters of one text of a spec that are shown.
const MAX_TEXT: usize = 400;

fn describe(id: &ObjectId, object: Object, events: &[Told], now: Timestamp) -> Result<String, Error> {
    let mut text = header(id, &object, now);
    if let Some(spec) = object.data.get("spec") {
        section(&mut text, "Spec", &get::yaml(&shortened(spec.clone())));
    }
    let conditions: Vec<Condition> = object
        .data
        .pointer("/status/conditions")
        .and_then(|conditions| serde_json::from_value(conditions.clone()).ok())
        .unwrap_or_default();
    let more = more(id);
    match id.kind {
        Kind::HarnessRun => run::tell(&mut text, &typed(object)?),
        Kind::ConfigRepository => repository::tell(&mut text, &typed(object)?),
        Kind::Session => session(&mut text, &object),
        Kind::Agent | Kind::EgressPolicy | Kind::ConfigMap => {}
    }
    section(&mut text, "Conditions", &of_conditions(&conditions, now));
    section(&mut text, "Events (last hour)", &of_events(events, now));
    section(&mut text, "More", &more);
    Ok(text)
}

fn header(id: &ObjectId, object: &Object, now: Timestamp) -> String {
    let since = |time: Timestamp| format!("{time} ({} ago)", age(time, now));
    let mut rows = vec![
        row(["Kind:", id.kind.as_str()]),
        row(["Name:", id.name.as_str()]),
        row(["Namespace:", id.namespace.as_str()]),
    ];
    if let Some(created) = object.creation_timestamp() {
        rows.push(row(["Created:", &since(created.0)]));
    }
    if let Some(deleted) = &object.metadata.deletion_timestamp {
        rows.push(row(["Being deleted:", &since(deleted.0)]));
    }
    let annotation = |name: &str| object.annotations().get(name).map(String::as_str);
    if let Some(source) = annotation(meta::SOURCE) {
        let path = annotation(meta::SOURCE_PATH).unwrap_or("?");
        let commit =
            annotation(meta::SOURCE_COMMIT).map_or_else(String::new, |commit| format!(" at {commit}"));
        rows.push(row(["From:", &format!("{path}{commit}, ConfigRepository {source}")]));
    }
    align(rows.iter())
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A titled part, indented; nothing when it is empty.
fn section(text: &mut String, title: &str, body: &str) {
    if body.trim().is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in body.lines() {
        text.push_str(format!("  {line}").trim_end());
        text.push('\n');
    }
}

/// Long texts cut, so that a prompt does not hide the rest.
fn shortened(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
                let left = text.len() - end;
                text.truncate(end);
                let _ = write!(text, "… ({left} more bytes)");
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| *item = shortened(item.take())),
        Value::Object(map) => map.values_mut().for_each(|item| *item = shortened(item.take())),
        _ => {}
    }
    value
}

fn session(text: &mut String, session: &Object) {
    let Some(status) = session.data.get("status") else { return };
    let mut body = format!("{} runs hold a slot\n", status["activeRuns"].as_i64().unwrap_or(0));
    if let (Some(name), Some(phase)) =
        (status["lastRun"]["name"].as_str(), status["lastRun"]["phase"].as_str())
    {
        let _ = writeln!(body, "started last: {name}, {phase}");
    }
    section(text, "Runs", &body);
}

fn of_conditions(conditions: &[Condition], now: Timestamp) -> String {
    let mut rows = vec![row(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"])];
    rows.extend(conditions.iter().map(|c| {
        let message = one_line(&c.message);
        row([&c.type_, &c.status, &c.reason, &age(c.last_transition_time.0, now), &message])
    }));
    if rows.len() == 1 { String::new() } else { align(rows.iter()) }
}

fn of_events(events: &[Told], now: Timestamp) -> String {
    let mut rows = vec![row(["LAST", "KIND", "REASON", "COUNT", "MESSAGE"])];
    rows.extend(events.iter().map(|told| {
        let kind = if told.warning { "Warning" } else { "Normal" };
        let (last, count) = (age(told.last, now), told.count.to_string());
        row([&last, kind, told.reason.as_str(), &count, &one_line(&told.message)])
    }));
    if rows.len() == 1 { String::new() } else { align(rows.iter()) }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The commands that show more.
fn more(id: &ObjectId) -> String {
    let ObjectId { namespace, name, .. } = id;
    let short = reference::short(id);
    let mut lines = format!("ostler get {short} -n {namespace} -o yaml\n");
    let _ = match id.kind {
        Kind::HarnessRun => writeln!(lines, "ostler logs {name} -n {namespace}"),
        Kind::ConfigRepository => writeln!(lines, "ostler reconcile {name} -n {namespace}"),
        Kind::Session => writeln!(lines, "ostler get runs -n {namespace}"),
        Kind::Agent | Kind::EgressPolicy | Kind::ConfigMap => Ok(()),
    };
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Reason;

    fn id(kind: Kind) -> ObjectId {
        ObjectId::new(kind, "team".parse().unwrap(), "a".parse().unwrap())
    }

    fn text(kind: Kind, spec: &Value, status: &Value, events: &[Told]) -> String {
        let object = serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": kind.as_str(),
            "metadata": {"namespace": "team", "name": "a", "creationTimestamp": "1970-01-01T00:00:00Z",
                "annotations": {meta::SOURCE: "team/config", meta::SOURCE_PATH: "x/a.yaml"}},
            "spec": spec, "status": status
        }))
        .unwrap();
        describe(&id(kind), object, events, Timestamp::from_second(60).unwrap()).unwrap()
    }

    fn has(text: &str, words: &[&str]) {
        let lines: Vec<String> = text.lines().map(one_line).collect();
        for word in words {
            assert!(lines.iter().any(|line| line.contains(word)), "{word:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_run_is_told_from_its_spec_to_its_branch() {
        let status = json!({
            "phase": "Failed", "reason": "NonZeroExit", "message": "it ended with 3", "exitCode": 3,
            "claim": {"holder": "h", "commit": "c1"}, "phaseHistory": [
                {"phase": "Pending", "time": "1970-01-01T00:00:01Z"},
                {"phase": "Failed", "reason": "NonZeroExit", "time": "1970-01-01T00:00:05Z"}],
            "egress": {"allowed": 1, "denied": 2, "denials": [
                {"host": "example.com", "port": 443, "reason": "no rule", "count": 2}]},
            "changes": {"branch": "ostler/team/a", "head": "h1", "files": 1, "additions": 2, "deletions": 3},
            "usage": {"inputTokens": 10, "outputTokens": 20, "usd": "0.1"},
            "result": {"commit": "r1", "path": "runs/team/00/a/result.yaml", "outcome": "Failed", "reason": "NonZeroExit"},
            "conditions": [{"type": "Succeeded", "status": "False", "reason": "NonZeroExit", "message": "m",
                "lastTransitionTime": "1970-01-01T00:00:30Z"}]
        });
        let told = Told {
            about: id(Kind::HarnessRun),
            uid: "u".parse().unwrap(),
            warning: true,
            reason: Reason::NonZeroExit,
            message: "see\nthe logs".to_owned(),
            count: 2,
            first: Timestamp::from_second(0).unwrap(),
            last: Timestamp::from_second(50).unwrap(),
        };
        let text = text(Kind::HarnessRun, &json!({"task": {"prompt": "ä".repeat(500)}}), &status, &[told]);
        has(
            &text,
            &[
                "Created: 1970-01-01T00:00:00Z (60s ago)",
                "From: x/a.yaml, ConfigRepository team/config",
                "… (200 more bytes)",
                "Phase: Failed (NonZeroExit): it ended with 3",
                "Exit code: 3",
                "1970-01-01T00:00:05Z Failed NonZeroExit",
                "Claim: commit c1, holder h",
                "Result: r1:runs/team/00/a/result.yaml (Failed)",
                "Branch: ostler/team/a at h1",
                "Changes: 1 files, +2 -3",
                "Usage: 10 tokens in, 20 out, 0.1 USD",
                "Egress: 1 allowed, 2 denied",
                "2x example.com:443: no rule",
                "Succeeded False NonZeroExit 30s m",
                "10s Warning NonZeroExit 2 see the logs",
                "ostler logs a -n team",
            ],
        );
    }

    #[test]
    fn a_repository_is_told_with_its_errors() {
        let status = json!({
            "lastFetched": "f1", "lastApplied": {"commit": "a1", "objects": 3}, "ledgerTip": "t1",
            "diagnostics": [{"path": "x.yaml", "line": 3, "column": 5, "code": "UnknownField", "message": "no"}],
            "diagnosticsTotal": 20, "held": [{"object": "Agent team/b", "reason": "its file has errors"}],
            "history": [{"commit": "a1", "time": "1970-01-01T00:00:05Z"}]
        });
        has(
            &text(Kind::ConfigRepository, &json!({"url": "/r"}), &status, &[]),
            &[
                "Fetched: f1",
                "Applied: a1, 3 objects",
                "Ledger: t1",
                "x.yaml:3:5: UnknownField: no",
                "and 19 more",
                "Agent team/b: its file has errors",
                "1970-01-01T00:00:05Z a1",
                "ostler reconcile a -n team",
            ],
        );
    }

    #[test]
    fn an_object_without_status_is_told_too() {
        for kind in Kind::OURS {
            let spec = if kind == Kind::ConfigRepository { json!({"url": "/r"}) } else { json!({}) };
            let text = text(kind, &spec, &json!({}), &[]);
            assert!(!text.contains("Conditions") && text.contains("More:"), "{text}");
        }
        has(
            &text(
                Kind::Session,
                &json!({}),
                &json!({"activeRuns": 1, "lastRun": {"name": "r", "phase": "Lost"}}),
                &[],
            ),
            &["1 runs hold a slot", "started last: r, Lost"],
        );
    }
}
