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

/// A parsed rule; its ports are never empty. Empty lists of methods or paths mean any.
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
        names(&self.hosts, &self.cidrs, host)
    }

    /// Whether the rule is open to the request's port, method and path, whatever its host. What cannot be
    /// seen (a tunnel) or be read in two ways is not open.
    pub(super) fn opens(&self, request: &Request) -> bool {
        let Request { port, method, path, .. } = request;
        let has_method = |m: &str| self.methods.iter().any(|own| own.as_str() == m);
        let has_path = |p: &str| !is_ambiguous(p) && self.paths.iter().any(|own| own.matches(p));
        self.ports.contains(port)
            && (self.methods.is_empty() || method.as_deref().is_some_and(has_method))
            && (self.paths.is_empty() || path.as_deref().is_some_and(has_path))
    }
}

/// A parsed deny rule: all ports, methods and paths of what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deny {
    pub(super) name: RuleName,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) cidrs: Vec<Cidr>,
}

impl Deny {
    pub(super) fn names(&self, host: &Host) -> bool {
        names(&self.hosts, &self.cidrs, host)
    }
}

fn names(hosts: &[HostPattern], cidrs: &[Cidr], host: &Host) -> bool {
    match host {
        Host::Name(name) => hosts.iter().any(|pattern| pattern.matches(name)),
        Host::Address(address) => cidrs.iter().any(|block| block.contains(*address)),
    }
}
