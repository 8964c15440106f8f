//! The audit log of the API server: one JSON object a line.

use std::path::Path;

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

    /// The HTTP status of the answer; 0 if there was none.
    pub(crate) fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }
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
