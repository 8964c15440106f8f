//! What an author would have to write to open what was refused.

use std::fmt;

use super::{Host, Reason, Request, http::is_ambiguous};

/// The narrowest rule that opens one refused request, as YAML that fits under `spec` of an `EgressPolicy`.
///
/// Paths longer than 200 bytes, or with a `*` of their own, are left out: the rule is then as wide as the
/// method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    hosts: Option<String>,
    cidrs: Option<String>,
    port: u16,
    method: Option<String>,
    path: Option<String>,
    allow_private: bool,
}

impl Suggestion {
    /// The suggestion for a refused request; `None` where no rule can open it or a deny rule must go first.
    pub(super) fn of(request: &Request, reason: &Reason) -> Option<Self> {
        let allow_private = match reason {
            Reason::NoPolicy | Reason::NoRule | Reason::Port(_) | Reason::Hidden(_) => false,
            Reason::Private(..) => true,
            Reason::Denied(_) | Reason::Never(..) | Reason::OwnService(_) => return None,
        };
        let (hosts, cidrs) = match &request.host {
            Host::Name(name) => (Some(name.to_string()), None),
            Host::Address(address) => {
                (None, Some(format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })))
            }
        };
        let writable = |path: &&String| path.len() <= 200 && !path.contains('*') && !is_ambiguous(path);
        Some(Self {
            hosts,
            cidrs,
            port: request.port,
            method: request.method.clone(),
            path: request.path.as_ref().filter(writable).cloned(),
            allow_private,
        })
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules: [{{")?;
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        if let Some(host) = &self.hosts {
            write!(f, "hosts: [{host}], ")?;
        }
        if let Some(block) = &self.cidrs {
            write!(f, "cidrs: [{}], ", quoted(block))?;
        }
        write!(f, "ports: [{}]", self.port)?;
        if let Some(method) = &self.method {
            write!(f, ", methods: [{method}]")?;
        }
        if let Some(path) = &self.path {
            write!(f, ", paths: [{}]", quoted(path))?;
        }
        write!(f, "}}]")?;
        if self.allow_private { write!(f, "\nallowPrivate: true") } else { Ok(()) }
    }
}
