//! The truth table of the decision, and properties that hold for every table.

mod addresses;
mod faults;
mod names;
mod properties;

use super::*;
use crate::kinds::egress_policy::{Deny, EgressPolicySpec, Mode, Rule};

fn hosts(hosts: &[&str]) -> Rule {
    Rule { name: "r".into(), hosts: strings(hosts), ..Rule::default() }
}

fn cidrs(cidrs: &[&str]) -> Rule {
    Rule { name: "r".into(), cidrs: strings(cidrs), ..Rule::default() }
}

fn ports(rule: Rule, ports: &[i32]) -> Rule {
    Rule { ports: ports.to_vec(), ..rule }
}

fn http(rule: Rule, methods: &[&str], paths: &[&str]) -> Rule {
    Rule { methods: strings(methods), paths: strings(paths), ..rule }
}

fn deny(hosts: &[&str], cidrs: &[&str]) -> Vec<Deny> {
    vec![Deny { hosts: strings(hosts), cidrs: strings(cidrs) }]
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn policy(rules: &[Rule], deny: Vec<Deny>, mode: Mode, allow_private: bool) -> EgressPolicySpec {
    EgressPolicySpec { rules: rules.to_vec(), deny, mode: Some(mode), allow_private: Some(allow_private) }
}

fn ruleset(policies: &[EgressPolicySpec]) -> Ruleset {
    Ruleset::parse(policies.iter().map(|policy| ("p", policy)), vec![]).unwrap()
}

fn enforce(rules: &[Rule], deny: Vec<Deny>) -> Ruleset {
    ruleset(&[policy(rules, deny, Mode::Enforce, false)])
}

fn tunnel(host: &str, port: u16) -> Request {
    Request::tunnel(host.parse().unwrap(), port)
}

fn word(decision: &Decision) -> &'static str {
    match decision.verdict() {
        Verdict::Allowed(_) => "allow",
        Verdict::Audited(_) => "audit",
        Verdict::Denied(reason) => reason.word(),
    }
}
