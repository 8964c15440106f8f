//! One rule of a policy.

use std::fmt;

use super::{Cidr, Host, HostPattern, Method, PathPattern, decide::Request, http::is_ambiguous};

/// Which rule of which policy: `default/git`, or `default/rules[2]` where the author gave no name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleName(String);

impl RuleName {
    pub(super) fn new(policy: &str, rule: &str) -> Self {
        Self(format!("{policy}/{rule}"))
    }

    /// The policy's name, a slash and the rule's.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A parsed rule. An empty list of ports means every port (the defaults of allow rules are filled in when
/// the rule is read); empty lists of methods or paths mean any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) name: RuleName,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) cidrs: Vec<Cidr>,
    pub(super) ports: Vec<u16>,
    pub(super) methods: Vec<Method>,
    pub(super) paths: Vec<PathPattern>,
}

impl Rule {
    /// Which rule this is.
    #[must_use]
    pub fn name(&self) -> &RuleName {
        &self.name
    }

    pub(super) fn names(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.hosts.iter().any(|pattern| pattern.matches(name)),
            Host::Address(address) => self.cidrs.iter().any(|block| block.contains(*address)),
        }
    }

    /// Whether an allow rule is open to the request's port, method and path, whatever its host.
    pub(super) fn opens(&self, request: &Request) -> bool {
        let Request { port, method, path, .. } = request;
        self.opens_port(*port)
            && (self.methods.is_empty() || method.as_deref().is_some_and(|m| self.has_method(m)))
            && (self.paths.is_empty()
                || path
                    .as_deref()
                    .is_some_and(|p| !is_ambiguous(p) && self.paths.iter().any(|own| own.matches(p))))
    }

    /// Whether a deny rule closes the request's port, method and path, whatever its host. What cannot be
    /// seen (a tunnel) or not be read in one way is closed.
    pub(super) fn closes(&self, request: &Request) -> bool {
        let Request { port, method, path, .. } = request;
        self.opens_port(*port)
            && (self.methods.is_empty() || method.as_deref().is_none_or(|m| self.has_method(m)))
            && (self.paths.is_empty()
                || path
                    .as_deref()
                    .is_none_or(|p| is_ambiguous(p) || self.paths.iter().any(|own| own.matches(p))))
    }

    fn opens_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }

    fn has_method(&self, method: &str) -> bool {
        self.methods.iter().any(|own| own.as_str() == method)
    }
}
