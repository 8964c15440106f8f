//! What a document is: its kind, namespace and name.

use serde_json::Value;

use super::{
    Code, PROMPT_PREFIX, Position, Scope,
    yaml::{Document, Finding},
};
use crate::{
    kinds::{API_VERSION, GROUP, Kind, ObjectId, meta},
    names::{Namespace, ObjectName},
    schema::closest,
};

/// What kind of document it is.
pub(super) enum Sort {
    /// Somebody else's: a Deployment, a CI workflow.
    Foreign,
    /// One of ours.
    Ours(Kind),
    /// Ours, but wrong.
    Wrong(Finding),
}

pub(super) fn sort(document: &Document) -> Sort {
    let text = |name: &str| document.value.get(name).and_then(Value::as_str);
    let wrong = |at: Position, code, message| Sort::Wrong(Finding { at, code, message });
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return incomplete(document);
    };
    let at = document.spans.value("/apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if kind == "List" && group.is_empty() {
        let message = "a List is not read: write its items as documents separated by ---".to_owned();
        return wrong(document.spans.value("/kind"), Code::KindNotAllowed, message);
    }
    match kind.parse::<Kind>() {
        Ok(Kind::ConfigMap) if api_version == "v1" => Sort::Ours(Kind::ConfigMap),
        Ok(Kind::ConfigMap) => Sort::Foreign,
        Ok(Kind::ConfigRepository) if group == GROUP => {
            let message =
                "a ConfigRepository cannot come out of a repository: it says whom to trust".to_owned();
            wrong(document.spans.value("/kind"), Code::KindNotAllowed, message)
        }
        Ok(kind) if api_version == API_VERSION => Sort::Ours(kind),
        Ok(kind) if group == GROUP || group.is_empty() || closest(group, [GROUP].into_iter()).is_some() => {
            wrong(at, Code::WrongApiVersion, format!("{kind} is of {API_VERSION}, not of {api_version:?}"))
        }
        Err(_) if group == GROUP => {
            let meant = closest(kind, Kind::OURS.iter().map(|kind| kind.as_str()));
            let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            let message = format!("{GROUP}/{version} has no kind {kind:?}{hint}");
            wrong(document.spans.value("/kind"), Code::UnknownKind, message)
        }
        _ => Sort::Foreign,
    }
}

/// Without kind and version it may be any YAML file, such as a CI workflow; with half of it, it is a mistake.
fn incomplete(document: &Document) -> Sort {
    let has = |name: &str| document.value.get(name).is_some();
    let named_like_ours =
        document.value.get("kind").and_then(Value::as_str).is_some_and(|k| k.parse::<Kind>().is_ok());
    if !(has("apiVersion") || named_like_ours || has("metadata") && has("spec")) {
        return Sort::Foreign;
    }
    let missing =
        if document.value.get("apiVersion").is_some_and(Value::is_string) { "kind" } else { "apiVersion" };
    let at =
        if has(missing) { document.spans.value(&format!("/{missing}")) } else { document.spans.value("") };
    let message = format!("field {missing:?} is needed, as a text");
    Sort::Wrong(Finding { at, code: Code::Schema(crate::schema::Code::MissingField), message })
}

/// The id of an object, with the repository's namespace where it names none.
pub(super) fn id(
    kind: Kind,
    document: &Document,
    scope: &Scope,
    findings: &mut Vec<Finding>,
) -> Option<ObjectId> {
    let namespace = namespace(document, scope, findings);
    let name = name(kind, document, findings);
    Some(ObjectId::new(kind, namespace?, name?))
}

fn namespace(document: &Document, scope: &Scope, findings: &mut Vec<Finding>) -> Option<Namespace> {
    let at = document.spans.value("/metadata/namespace");
    let parsed = match document.value.pointer("/metadata/namespace") {
        None => Ok(scope.default_namespace().clone()),
        Some(Value::String(text)) => {
            text.parse().map_err(|error: crate::names::InvalidName| error.to_string())
        }
        Some(_) => Err("a namespace is a text".to_owned()),
    };
    match parsed {
        Ok(namespace) if scope.allows(&namespace) => Some(namespace),
        Ok(namespace) => {
            let message = format!("this repository may not write to namespace {namespace}");
            findings.push(Finding { at, code: Code::NamespaceNotAllowed, message });
            None
        }
        Err(message) => {
            findings.push(Finding { at, code: Code::InvalidName, message });
            None
        }
    }
}

fn name(kind: Kind, document: &Document, findings: &mut Vec<Finding>) -> Option<ObjectName> {
    let at = document.spans.value("/metadata/name");
    let parsed = match document.value.pointer("/metadata/name") {
        None => Err("field \"name\" is needed in metadata".to_owned()),
        Some(Value::String(text)) => text.parse::<ObjectName>().map_err(|error| error.to_string()),
        Some(_) => Err("a name is a text; quote it".to_owned()),
    };
    match parsed {
        Ok(name) if kind == Kind::ConfigMap && name.as_str().starts_with(PROMPT_PREFIX) => {
            let message = format!("names that start with {PROMPT_PREFIX} are ostler's own");
            findings.push(Finding { at, code: Code::ReservedName, message });
            None
        }
        Ok(name) => Some(name),
        Err(message) => {
            findings.push(Finding { at, code: Code::InvalidName, message });
            None
        }
    }
}

/// Labels and annotations: texts, and none of those that say where an object comes from.
pub(super) fn metadata(document: &Document, findings: &mut Vec<Finding>) {
    const RESERVED: [&str; 6] =
        [meta::SOURCE, meta::SOURCE_UID, meta::SOURCE_PATH, meta::SOURCE_COMMIT, meta::DIGEST, meta::PROMPT];
    let wrong = |code| Code::Schema(code);
    for part in ["labels", "annotations"] {
        let at = format!("/metadata/{part}");
        let Some(value) = document.value.pointer(&at) else { continue };
        let Value::Object(entries) = value else {
            let message = format!("{part} are a map of texts");
            findings.push(Finding {
                at: document.spans.value(&at),
                code: wrong(crate::schema::Code::WrongType),
                message,
            });
            continue;
        };
        for (key, value) in entries {
            let at = format!("{at}/{}", crate::schema::escape(key));
            if RESERVED.contains(&key.as_str()) {
                let message = format!("{key} is set by ostler alone");
                findings.push(Finding { at: document.spans.key(&at), code: Code::ReservedName, message });
            } else if let Some(message) = malformed(part, key) {
                let code = wrong(crate::schema::Code::BadFormat);
                findings.push(Finding { at: document.spans.key(&at), code, message });
            } else if !value.is_string() {
                let message = format!("expected a text, got {value}: quote it");
                let code = wrong(crate::schema::Code::WrongType);
                findings.push(Finding { at: document.spans.value(&at), code, message });
            } else if part == "labels"
                && !value.as_str().is_some_and(|text| text.is_empty() || is_name_part(text))
            {
                let message = format!("{value} cannot be a label: {NAME_PART}");
                let code = wrong(crate::schema::Code::BadFormat);
                findings.push(Finding { at: document.spans.value(&at), code, message });
            }
        }
    }
}

const NAME_PART: &str =
    "1 to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit";

/// What is wrong with the key of a label or annotation; a server refuses the whole object for it.
fn malformed(part: &str, key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain =
        |text: &str| text.len() <= 253 && text.split('.').all(|label| label.parse::<Namespace>().is_ok());
    if is_name_part(name) && prefix.is_none_or(is_domain) {
        return None;
    }
    Some(format!("{key:?} cannot be a key of {part}: {NAME_PART}, perhaps after a domain and '/'"))
}

fn is_name_part(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inner)
}
