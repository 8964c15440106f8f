//! Policies as parsed from their specs, and the set that applies to one run.

use std::net::{IpAddr, SocketAddr};

use super::{
    CidrError, HostError, HttpError, Rule, RuleName, Scope,
    address::{canonical, scope_of},
};

/// Rules of all policies of one run together; more is a mistake, and every connection reads them all.
const RULES: usize = 2048;

/// Whether a policy refuses or only records what it would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Refuses.
    #[default]
    Enforce,
    /// Records.
    Audit,
}

/// What is wrong with one field of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A host pattern.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A block of addresses.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// A method or a path.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Port 0.
    #[error("a port is 1 to 65535")]
    Port,
    /// A rule that names nothing.
    #[error("a rule names hosts or cidrs")]
    NamesNothing,
    /// Too many rules.
    #[error("a run has at most {RULES} rules")]
    Count,
}

/// A faulty field of an `EgressPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("egress policy {policy}, {field}")]
pub struct RulesetError {
    /// The policy's name.
    pub policy: String,
    /// Where in its spec, as in `rules[2].hosts[0]`.
    pub field: String,
    /// What is wrong there.
    #[source]
    pub fault: Fault,
}

/// The fields of one rule as its author wrote them.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuleFields<'a> {
    /// `name`.
    pub name: Option<&'a str>,
    /// `hosts`.
    pub hosts: &'a [String],
    /// `cidrs`.
    pub cidrs: &'a [String],
    /// `ports`.
    pub ports: &'a [u16],
    /// `methods`.
    pub methods: &'a [String],
    /// `paths`.
    pub paths: &'a [String],
}

/// The fields of one policy as its author wrote them.
#[derive(Debug, Clone, Default)]
pub struct PolicyFields<'a> {
    /// `rules`.
    pub rules: Vec<RuleFields<'a>>,
    /// `deny`.
    pub deny: Vec<RuleFields<'a>>,
    /// `mode`.
    pub mode: Mode,
    /// `allowPrivate`.
    pub allow_private: bool,
}

/// One parsed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
    pub(super) deny: Vec<Rule>,
    pub(super) mode: Mode,
    pub(super) allow_private: bool,
}

impl Policy {
    /// Parses a policy; all of its faults at once.
    pub fn parse(name: &str, fields: &PolicyFields<'_>) -> Result<Self, Vec<RulesetError>> {
        let mut faults = Vec::new();
        let mut read = |list: &[RuleFields<'_>], section, ports: fn(&RuleFields<'_>) -> Vec<u16>| {
            let mut reading = Reading { policy: name, section, index: 0, faults: &mut faults };
            list.iter().map(|fields| reading.rule(fields, ports(fields))).collect::<Vec<_>>()
        };
        let rules = read(&fields.rules, "rules", default_ports);
        let deny = read(&fields.deny, "deny", |fields| fields.ports.to_vec());
        if faults.is_empty() {
            Ok(Self { rules, deny, mode: fields.mode, allow_private: fields.allow_private })
        } else {
            Err(faults)
        }
    }
}

/// The ports of an allow rule: what it says, else 443, and 80 too if it reads methods or paths.
fn default_ports(fields: &RuleFields<'_>) -> Vec<u16> {
    match fields.ports {
        [] if fields.methods.is_empty() && fields.paths.is_empty() => vec![443],
        [] => vec![80, 443],
        ports => ports.to_vec(),
    }
}

/// Reads the rules of one section and keeps what is wrong with them.
struct Reading<'a> {
    policy: &'a str,
    section: &'static str,
    index: usize,
    faults: &'a mut Vec<RulesetError>,
}

impl Reading<'_> {
    fn rule(&mut self, fields: &RuleFields<'_>, ports: Vec<u16>) -> Rule {
        let place = format!("{}[{}]", self.section, self.index);
        if fields.hosts.is_empty() && fields.cidrs.is_empty() {
            self.fault(place.clone(), Fault::NamesNothing);
        }
        if let Some(at) = ports.iter().position(|port| *port == 0) {
            self.fault(format!("{place}.ports[{at}]"), Fault::Port);
        }
        let rule = Rule {
            name: RuleName::new(self.policy, fields.name.unwrap_or(&place)),
            hosts: self.list(&place, "hosts", fields.hosts),
            cidrs: self.list(&place, "cidrs", fields.cidrs),
            ports,
            methods: self.list(&place, "methods", fields.methods),
            paths: self.list(&place, "paths", fields.paths),
        };
        self.index += 1;
        rule
    }

    fn list<T: std::str::FromStr<Err: Into<Fault>>>(
        &mut self,
        place: &str,
        field: &str,
        texts: &[String],
    ) -> Vec<T> {
        let mut read = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            match text.parse::<T>() {
                Ok(item) => read.push(item),
                Err(fault) => self.fault(format!("{place}.{field}[{at}]"), fault.into()),
            }
        }
        read
    }

    fn fault(&mut self, field: String, fault: Fault) {
        self.faults.push(RulesetError { policy: self.policy.to_owned(), field, fault });
    }
}

/// A listening socket of the control plane on this machine or network, closed to every run whatever the
/// rules say. An unspecified address (`0.0.0.0`, `::`) stands for this port on every address that is not
/// public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnService(pub SocketAddr);

/// The policies that apply to one run, and the addresses that none of them can open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub(super) policies: Vec<Policy>,
    own_services: Vec<OwnService>,
}

impl Ruleset {
    /// The union of parsed policies. No policies: nothing is open.
    ///
    /// # Errors
    /// When all of them together have more than 2048 rules.
    pub fn new(policies: Vec<Policy>, own_services: Vec<OwnService>) -> Result<Self, Fault> {
        let count: usize = policies.iter().map(|policy| policy.rules.len() + policy.deny.len()).sum();
        if count > RULES { Err(Fault::Count) } else { Ok(Self { policies, own_services }) }
    }

    /// Every allow rule with the policy that holds it, in the order of the policies.
    pub(super) fn allow_rules(&self) -> impl Iterator<Item = (&Policy, &Rule)> {
        self.policies.iter().flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
    }

    /// Whether there are policies and all of them only audit.
    pub(super) fn only_audits(&self) -> bool {
        !self.policies.is_empty() && self.policies.iter().all(|policy| policy.mode == Mode::Audit)
    }

    pub(super) fn is_own_service(&self, address: IpAddr, port: u16) -> bool {
        self.own_services.iter().any(|OwnService(own)| {
            let own_address = canonical(own.ip());
            let everywhere = own_address.is_unspecified() && scope_of(address) != Scope::Public;
            own.port() == port && (everywhere || own_address == address)
        })
    }
}
