//! What an object refers to.

use serde_json::Value;

use super::{Position, spans::Spans};
use crate::{
    kinds::{Kind, ObjectId},
    names::RepoPath,
};

/// What is referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An object.
    Object(ObjectId),
    /// A file of the repository, for a prompt.
    Prompt(RepoPath),
}

/// A reference and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What is referred to.
    pub target: Target,
    /// Where.
    pub at: Position,
    /// True when nothing is written and the default is meant.
    pub implied: bool,
    /// That line of the file.
    pub(super) source: String,
}

/// All references of an object whose targets may be in the repository. ConfigMaps and Secrets may live elsewhere.
pub(super) fn of(id: &ObjectId, value: &Value, spans: &Spans, text: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let line = |at: Position| text.lines().nth(at.line as usize - 1).unwrap_or_default().to_owned();
    let mut object = |kind: Kind, pointer: &str, implied: bool, name: &str| {
        if let Ok(name) = name.parse() {
            let target = Target::Object(ObjectId::new(kind, id.namespace.clone(), name));
            let at = spans.value(pointer);
            found.push(Reference { target, at, implied, source: line(at) });
        }
    };
    let name_at = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (session, agent) = ("/spec/sessionRef/name", "/spec/agentRef/name");
    if let (Kind::HarnessRun, Some(name)) = (id.kind, name_at(session)) {
        object(Kind::Session, session, false, name);
    }
    if matches!(id.kind, Kind::HarnessRun | Kind::Session) {
        match name_at(agent) {
            Some(name) => object(Kind::Agent, agent, false, name),
            // with a session, the session's agent counts, and the session itself tells of it
            None if id.kind == Kind::HarnessRun && name_at(session).is_some() => {}
            None => object(Kind::Agent, "/metadata/name", true, "default"),
        }
    }
    let policies = value.pointer("/spec/egressPolicyRefs").and_then(Value::as_array);
    for index in 0..policies.map_or(0, Vec::len) {
        let at = format!("/spec/egressPolicyRefs/{index}/name");
        if let Some(name) = name_at(&at) {
            object(Kind::EgressPolicy, &at, false, name);
        }
    }
    let prompt = "/spec/task/promptFrom/path";
    if let Some(Ok(path)) = name_at(prompt).map(str::parse) {
        let at = spans.value(prompt);
        found.push(Reference { target: Target::Prompt(path), at, implied: false, source: line(at) });
    }
    found
}
