//! The audit log of the API server: one JSON object a line.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

/// One request, as the API server saw it; the names are those of its audit events.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditLine {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub(crate) verb: String,
    #[serde(rename = "requestURI")]
    pub(crate) request_uri: String,
    /// Who asked.
    pub(crate) user: User,
    /// As whom, if not as themselves.
    pub(crate) impersonated_user: Option<User>,
    #[serde(default)]
    pub(crate) user_agent: String,
    #[serde(default)]
    pub(crate) object_ref: ObjectRef,
    pub(crate) response_status: Option<ResponseStatus>,
    /// When it was answered, by the API server's clock.
    pub(crate) stage_timestamp: jiff::Timestamp,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct User {
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
}

/// Parts that a request does not have are empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectRef {
    /// The plural: `pods`.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) api_group: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ResponseStatus {
    #[serde(default)]
    pub(crate) code: u16,
}

impl AuditLine {
    /// Whether it asked for a change.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it asked for a change of an object that people see: leases, events and reviews are counted apart.
    pub(crate) fn is_object_write(&self) -> bool {
        let apart = ["leases", "events", "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews"];
        self.is_write() && !apart.contains(&self.object_ref.resource.as_str())
    }

    /// Whether one of these users asked, by name.
    pub(crate) fn is_of(&self, users: &[&str]) -> bool {
        users.contains(&self.user.username.as_str())
    }

    /// Verb and kind of object: `patch harnessruns/status`.
    pub(crate) fn what(&self) -> String {
        let ObjectRef { resource, subresource, .. } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {resource}{slash}{subresource}", self.verb)
    }

    /// The HTTP status of the answer; 0 if there was none.
    pub(crate) fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }
}

/// How many writes of each kind of object these users made, by `verb resource/subresource`; those that were refused, too.
pub(crate) fn object_writes(lines: &[AuditLine], users: &[&str]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|line| line.is_of(users) && line.is_object_write()) {
        *counts.entry(line.what()).or_default() += 1;
    }
    counts
}

/// Every whole line of the log; none, if there is no log yet.
pub(crate) fn read(log: &Path) -> Vec<AuditLine> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The lines from that byte on, as far as they are whole, and the byte after them.
pub(crate) fn read_from(log: &Path, from: u64) -> (Vec<AuditLine>, u64) {
    use std::io::{Read, Seek, SeekFrom};

    let Ok(mut file) = std::fs::File::open(log) else { return (Vec::new(), from) };
    file.seek(SeekFrom::Start(from)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), from + whole as u64)
}
