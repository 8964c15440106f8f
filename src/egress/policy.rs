//! Policies as parsed from their specs, and the set that applies to one run.

use std::net::{IpAddr, SocketAddr};

use super::{
    CidrError, HostError, HttpError, Rule, RuleName, Scope,
    address::{canonical, embedded_v4, scope_of},
    rule::Deny,
};
use crate::kinds::egress_policy::{self as spec, EgressPolicySpec, Mode};

/// Rules of all policies of one run together; more is a mistake, and every connection reads them all.
const RULES: usize = 2048;

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
    /// Not a TCP port.
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

/// One parsed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
    pub(super) deny: Vec<Deny>,
    pub(super) mode: Mode,
    pub(super) allow_private: bool,
}

impl Policy {
    /// Parses a policy; all of its faults at once.
    pub fn parse(name: &str, spec: &EgressPolicySpec) -> Result<Self, Vec<RulesetError>> {
        let mut reading = Reading { policy: name, faults: Vec::new() };
        let rules = spec.rules.iter().enumerate().map(|(at, rule)| reading.rule(at, rule)).collect();
        let deny = spec.deny.iter().enumerate().map(|(at, deny)| reading.deny(at, deny)).collect();
        if reading.faults.is_empty() {
            let mode = spec.mode.unwrap_or(Mode::Enforce);
            Ok(Self { rules, deny, mode, allow_private: spec.allow_private.unwrap_or(false) })
        } else {
            Err(reading.faults)
        }
    }
}

/// Reads the rules of one policy and keeps what is wrong with them.
struct Reading<'a> {
    policy: &'a str,
    faults: Vec<RulesetError>,
}

impl Reading<'_> {
    fn rule(&mut self, at: usize, rule: &spec::Rule) -> Rule {
        let place = format!("rules[{at}]");
        self.names_something(&place, &rule.hosts, &rule.cidrs);
        Rule {
            name: RuleName::new(self.policy, if rule.name.is_empty() { &place } else { &rule.name }),
            hosts: self.list(&place, "hosts", &rule.hosts),
            cidrs: self.list(&place, "cidrs", &rule.cidrs),
            ports: self.ports(&place, rule),
            methods: self.list(&place, "methods", &rule.methods),
            paths: self.list(&place, "paths", &rule.paths),
        }
    }

    fn deny(&mut self, at: usize, deny: &spec::Deny) -> Deny {
        let place = format!("deny[{at}]");
        self.names_something(&place, &deny.hosts, &deny.cidrs);
        Deny {
            name: RuleName::new(self.policy, &place),
            hosts: self.list(&place, "hosts", &deny.hosts),
            cidrs: self.list(&place, "cidrs", &deny.cidrs),
        }
    }

    fn names_something(&mut self, place: &str, hosts: &[String], cidrs: &[String]) {
        if hosts.is_empty() && cidrs.is_empty() {
            self.fault(place.to_owned(), Fault::NamesNothing);
        }
    }

    /// What the rule says, else 443, and 80 too if it reads methods or paths.
    fn ports(&mut self, place: &str, rule: &spec::Rule) -> Vec<u16> {
        let mut ports = Vec::with_capacity(rule.ports.len().max(2));
        for (at, port) in rule.ports.iter().enumerate() {
            match u16::try_from(*port) {
                Ok(port) if port != 0 => ports.push(port),
                _ => self.fault(format!("{place}.ports[{at}]"), Fault::Port),
            }
        }
        if rule.ports.is_empty() {
            ports.push(443);
            if !(rule.methods.is_empty() && rule.paths.is_empty()) {
                ports.push(80);
            }
        }
        ports
    }

    fn list<T>(&mut self, place: &str, field: &str, texts: &[String]) -> Vec<T>
    where
        T: std::str::FromStr<Err: Into<Fault>>,
    {
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

/// Something of the control plane that is closed to every run, whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnService {
    /// A listening socket on this machine or network. An unspecified address (`0.0.0.0`, `::`) stands for this port on every
    /// address that is not public.
    Socket(SocketAddr),
    /// All that listens on the loopback of the machine or pod that dials: nothing there was made for runs.
    Loopback,
}

/// The policies that apply to one run, and the addresses that none of them can open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub(super) policies: Vec<Policy>,
    own_services: Vec<OwnService>,
}

impl Ruleset {
    /// The union of the policies that a run names, each with its name. No policies: nothing is open.
    ///
    /// # Errors
    /// Every fault of every policy.
    pub fn parse<'a>(
        policies: impl IntoIterator<Item = (&'a str, &'a EgressPolicySpec)>,
        own_services: Vec<OwnService>,
    ) -> Result<Self, Vec<RulesetError>> {
        let (mut read, mut faults, mut count) = (Vec::new(), Vec::new(), 0);
        for (name, spec) in policies {
            count += spec.rules.len() + spec.deny.len();
            if count > RULES {
                faults.push(RulesetError {
                    policy: name.to_owned(),
                    field: "rules".into(),
                    fault: Fault::Count,
                });
                break;
            }
            match Policy::parse(name, spec) {
                Ok(policy) => read.push(policy),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(Self { policies: read, own_services }) } else { Err(faults) }
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
        self.own_services.iter().any(|own| match own {
            OwnService::Loopback => embedded_v4(address).unwrap_or(address).is_loopback(),
            OwnService::Socket(own) => {
                let own_address = canonical(own.ip());
                let everywhere = own_address.is_unspecified() && scope_of(address) != Scope::Public;
                own.port() == port && (everywhere || own_address == address)
            }
        })
    }
}
