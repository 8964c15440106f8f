//! The two judgements over one connection.

use std::{fmt, net::IpAddr};

use super::{
    Host, Policy, RuleName, Ruleset, Scope, Suggestion,
    address::{canonical, embedded_v4, scope_of},
    rule::Deny,
};
use crate::kinds::egress_policy::Mode;

/// What the agent wants to reach. A tunnel has no method and no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The host as the agent wrote it.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
    /// The HTTP method, if the request is plain HTTP or goes to a route.
    pub method: Option<String>,
    /// The path without the query, under the same condition.
    pub path: Option<String>,
}

impl Request {
    /// A tunnel, in which nothing can be seen.
    #[must_use]
    pub fn tunnel(host: Host, port: u16) -> Self {
        Self { host, port, method: None, path: None }
    }

    /// A request whose method and path are seen.
    #[must_use]
    pub fn plain(host: Host, port: u16, method: &str, path: &str) -> Self {
        Self { host, port, method: Some(method.to_owned()), path: Some(path.to_owned()) }
    }
}

/// Why a request is refused, or would be if its policies were enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The run names no policy, so nothing is open.
    NoPolicy,
    /// No rule names the host (or holds the address).
    NoRule,
    /// This rule names the host, but not the port.
    Port(RuleName),
    /// This rule names host and port, but not the method or path, or the request is a tunnel that hides them.
    Hidden(RuleName),
    /// A deny rule.
    Denied(RuleName),
    /// The address leads inside and no policy opens that.
    Private(IpAddr, &'static str),
    /// The address is never opened.
    Never(IpAddr, &'static str),
    /// A service of ours.
    OwnService(IpAddr),
}

impl Reason {
    /// One word for metrics and status; the set is closed.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoPolicy => "NoPolicy",
            Self::NoRule => "NoRule",
            Self::Port(_) => "PortNotOpen",
            Self::Hidden(_) => "MethodOrPathNotOpen",
            Self::Denied(_) => "DenyRule",
            Self::Private(..) => "PrivateAddress",
            Self::Never(..) => "ReservedAddress",
            Self::OwnService(_) => "OwnService",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => write!(f, "this run has no egress policy"),
            Self::NoRule => write!(f, "no rule names this host"),
            Self::Port(rule) => write!(f, "rule {rule} names this host, but not this port"),
            Self::Hidden(rule) => {
                write!(f, "rule {rule} asks for a method or path that this request does not show")
            }
            Self::Denied(rule) => write!(f, "rule {rule} denies it"),
            Self::Private(address, kind) => {
                write!(f, "{address} is a {kind} address and no policy with allowPrivate names it")
            }
            Self::Never(address, kind) => write!(f, "{address} is {kind}, which no rule can open"),
            Self::OwnService(address) => {
                write!(f, "{address} is a service of the control plane, which no rule can open")
            }
        }
    }
}

/// How a request was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This rule opens it.
    Allowed(RuleName),
    /// It passes because the policies that are against it only audit.
    Audited(Reason),
    /// It is refused.
    Denied(Reason),
}

/// A request and how it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    request: Request,
    verdict: Verdict,
}

impl Decision {
    /// What was judged.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// How it was judged.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether the request passes (audited ones do).
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        !matches!(self.verdict, Verdict::Denied(_))
    }

    /// What is against it, for denied and for audited requests.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match &self.verdict {
            Verdict::Allowed(_) => None,
            Verdict::Audited(reason) | Verdict::Denied(reason) => Some(reason),
        }
    }

    /// The narrowest change to a policy that would open it, if a rule can.
    #[must_use]
    pub fn suggestion(&self) -> Option<Suggestion> {
        self.reason().and_then(|reason| Suggestion::of(&self.request, reason))
    }

    fn with(&self, verdict: Verdict) -> Self {
        Self { request: self.request.clone(), verdict }
    }
}

impl fmt::Display for Decision {
    /// One sentence: what was decided over which target, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { host, port, .. } = &self.request;
        match &self.verdict {
            Verdict::Allowed(rule) => write!(f, "{host}:{port} is allowed by rule {rule}"),
            Verdict::Audited(reason) => write!(f, "{host}:{port} would be denied: {reason}"),
            Verdict::Denied(reason) => write!(f, "{host}:{port} is denied: {reason}"),
        }
    }
}

/// Judges a request before any name is resolved. An address literal still has to pass [`decide_address`].
#[must_use]
pub fn decide(rules: &Ruleset, request: Request) -> Decision {
    let verdict = judge(rules, &request);
    Decision { request, verdict }
}

fn judge(rules: &Ruleset, request: &Request) -> Verdict {
    let denied = |mode| first_denial(rules, mode, |deny| deny.names(&request.host));
    if let Some(rule) = denied(Mode::Enforce) {
        return Verdict::Denied(Reason::Denied(rule));
    }
    if let Some(rule) = denied(Mode::Audit) {
        return Verdict::Audited(Reason::Denied(rule));
    }
    let naming = || rules.allow_rules().map(|(_, rule)| rule).filter(|rule| rule.names(&request.host));
    if let Some(rule) = naming().find(|rule| rule.opens(request)) {
        return Verdict::Allowed(rule.name.clone());
    }
    let on_port = naming().find(|rule| rule.ports.contains(&request.port));
    let reason = match (on_port, naming().next()) {
        _ if rules.policies.is_empty() => Reason::NoPolicy,
        (Some(rule), _) => Reason::Hidden(rule.name.clone()),
        (None, Some(rule)) => Reason::Port(rule.name.clone()),
        (None, None) => Reason::NoRule,
    };
    if rules.only_audits() { Verdict::Audited(reason) } else { Verdict::Denied(reason) }
}

/// Judges one address to which the host of an earlier decision resolved (or that it is). The caller dials
/// exactly this address. A denied decision stays denied.
#[must_use]
pub fn decide_address(rules: &Ruleset, earlier: &Decision, address: IpAddr) -> Decision {
    let address = canonical(address);
    if !earlier.is_allowed() {
        return earlier.clone();
    }
    let request = &earlier.request;
    if let Scope::Never(kind) = scope_of(address) {
        return earlier.with(Verdict::Denied(Reason::Never(address, kind)));
    }
    if rules.is_own_service(address, request.port) {
        return earlier.with(Verdict::Denied(Reason::OwnService(address)));
    }
    let holds = |deny: &Deny| {
        let inner = embedded_v4(address);
        deny.cidrs.iter().any(|block| block.contains(address) || inner.is_some_and(|v4| block.contains(v4)))
    };
    if let Some(rule) = first_denial(rules, Mode::Enforce, holds) {
        return earlier.with(Verdict::Denied(Reason::Denied(rule)));
    }
    if let Scope::Private(kind) = scope_of(address) {
        let opened = rules.allow_rules().any(|(policy, rule)| {
            let named = rule.names(&request.host) || rule.cidrs.iter().any(|block| block.contains(address));
            policy.allow_private && named && rule.opens(request)
        });
        if !opened {
            return earlier.with(Verdict::Denied(Reason::Private(address, kind)));
        }
    }
    match first_denial(rules, Mode::Audit, holds) {
        Some(rule) => earlier.with(Verdict::Audited(Reason::Denied(rule))),
        None => earlier.clone(),
    }
}

/// The first deny rule of a policy of this mode that names the target.
fn first_denial(rules: &Ruleset, mode: Mode, names: impl Fn(&Deny) -> bool) -> Option<RuleName> {
    let of_mode = |policy: &&Policy| policy.mode == mode;
    let mut denials = rules.policies.iter().filter(of_mode).flat_map(|policy| &policy.deny);
    denials.find(|deny| names(deny)).map(|deny| deny.name.clone())
}
