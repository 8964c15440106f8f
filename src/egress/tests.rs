//! The truth table of the decision, and properties that hold for every table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

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

#[test]
fn names_and_ports() {
    let rules = enforce(
        &[
            hosts(&["GitHub.com.", "*.githubusercontent.com"]),
            ports(hosts(&["registry.example"]), &[8443, 5000]),
            http(hosts(&["api.example.com"]), &["GET", "POST"], &["/org/*", "/v1/*/items"]),
            cidrs(&["203.0.113.0/24", "2001:db8::/32"]),
            hosts(&["closed.example.com"]),
        ],
        deny(&["gist.github.com", "closed.example.com"], &["203.0.113.128/25"]),
    );
    let table = [
        ("github.com", 443, "allow"),
        ("GITHUB.COM", 443, "allow"),
        ("github.com.", 443, "allow"),
        ("github.com", 80, "PortNotOpen"),
        ("gist.github.com", 443, "DenyRule"),
        ("www.github.com", 443, "NoRule"),
        ("github.com.evil.example", 443, "NoRule"),
        ("evilgithub.com", 443, "NoRule"),
        ("raw.githubusercontent.com", 443, "allow"),
        ("githubusercontent.com", 443, "NoRule"),
        ("a.b.githubusercontent.com", 443, "NoRule"),
        ("xgithubusercontent.com", 443, "NoRule"),
        ("registry.example", 5000, "allow"),
        ("registry.example", 443, "PortNotOpen"),
        ("api.example.com", 443, "MethodOrPathNotOpen"),
        ("api.example.com", 8080, "PortNotOpen"),
        ("203.0.113.7", 443, "allow"),
        ("[::ffff:203.0.113.7]", 443, "allow"),
        ("203.0.114.7", 443, "NoRule"),
        ("[2001:db8::1]", 443, "allow"),
        ("[2001:db9::1]", 443, "NoRule"),
        ("closed.example.com", 443, "DenyRule"),
        ("closed.example.com", 22, "DenyRule"),
        ("203.0.113.200", 443, "DenyRule"),
    ];
    for (host, port, expected) in table {
        let decision = decide(&rules, tunnel(host, port));
        assert_eq!(word(&decision), expected, "{decision}");
    }
}

#[test]
fn methods_and_paths() {
    let rules = enforce(
        &[
            http(hosts(&["api.example.com"]), &["GET", "POST"], &["/org/*", "/v1/*/items"]),
            ports(hosts(&["open.example.com"]), &[80]),
        ],
        vec![],
    );
    let table = [
        ("api.example.com", "GET", "/org/repo", "allow"),
        ("api.example.com", "GET", "/org/repo/issues/1", "allow"),
        ("api.example.com", "get", "/org/repo", "MethodOrPathNotOpen"),
        ("api.example.com", "PUT", "/org/repo", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/organisation", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/org/../admin", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/org/%2e%2e/admin", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/org/..%2fadmin", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/org//x", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/org/a%20b", "allow"),
        ("api.example.com", "GET", "/org/a%zz", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/v1/a/b/items", "allow"),
        ("api.example.com", "GET", "/v1/items", "MethodOrPathNotOpen"),
        ("api.example.com", "GET", "/%6frg/repo", "MethodOrPathNotOpen"),
        ("open.example.com", "DELETE", "/x/../secret", "allow"),
    ];
    for (host, method, path, expected) in table {
        let decision = decide(&rules, Request::plain(host.parse().unwrap(), 80, method, path));
        assert_eq!(word(&decision), expected, "{method} {path}: {decision}");
    }
}

#[test]
fn addresses_behind_an_allowed_name() {
    let named = [hosts(&["db.example.com"])];
    let closed = enforce(&named, deny(&[], &["198.51.100.0/24"]));
    let open = ruleset(&[policy(&named, deny(&[], &["10.9.0.0/16"]), Mode::Enforce, true)]);
    let table = [
        ("93.184.215.14", "allow", "allow"),
        ("2606:2800::1", "allow", "allow"),
        ("198.51.100.9", "DenyRule", "allow"),
        ("127.0.0.1", "PrivateAddress", "allow"),
        ("127.8.8.8", "PrivateAddress", "allow"),
        ("::1", "PrivateAddress", "allow"),
        ("10.1.2.3", "PrivateAddress", "allow"),
        ("10.9.0.1", "PrivateAddress", "DenyRule"),
        ("::ffff:10.9.0.1", "PrivateAddress", "DenyRule"),
        ("64:ff9b::10.9.0.1", "PrivateAddress", "DenyRule"),
        ("172.16.0.1", "PrivateAddress", "allow"),
        ("172.32.0.1", "allow", "allow"),
        ("192.168.1.1", "PrivateAddress", "allow"),
        ("169.254.1.1", "PrivateAddress", "allow"),
        ("100.64.0.1", "PrivateAddress", "allow"),
        ("100.128.0.1", "allow", "allow"),
        ("0.1.2.3", "PrivateAddress", "allow"),
        ("240.0.0.1", "PrivateAddress", "allow"),
        ("fe80::1", "PrivateAddress", "allow"),
        ("fd00::1", "PrivateAddress", "allow"),
        ("::ffff:127.0.0.1", "PrivateAddress", "allow"),
        ("::127.0.0.1", "PrivateAddress", "allow"),
        ("64:ff9b::7f00:1", "PrivateAddress", "allow"),
        ("64:ff9b::808:808", "allow", "allow"),
        ("2002:7f00:1::", "PrivateAddress", "allow"),
        ("2001::1", "PrivateAddress", "allow"),
        ("0.0.0.0", "ReservedAddress", "ReservedAddress"),
        ("::", "ReservedAddress", "ReservedAddress"),
        ("::ffff:0.0.0.0", "ReservedAddress", "ReservedAddress"),
        ("224.0.0.1", "ReservedAddress", "ReservedAddress"),
        ("ff02::1", "ReservedAddress", "ReservedAddress"),
        ("255.255.255.255", "ReservedAddress", "ReservedAddress"),
        ("169.254.169.254", "ReservedAddress", "ReservedAddress"),
        ("::ffff:169.254.169.254", "ReservedAddress", "ReservedAddress"),
        ("64:ff9b::169.254.169.254", "ReservedAddress", "ReservedAddress"),
        ("2002:a9fe:a9fe::", "ReservedAddress", "ReservedAddress"),
        ("168.63.129.16", "ReservedAddress", "ReservedAddress"),
        ("100.100.100.200", "ReservedAddress", "ReservedAddress"),
        ("fd00:ec2::254", "ReservedAddress", "ReservedAddress"),
    ];
    for (address, without, with) in table {
        let address = address.parse().unwrap();
        for (rules, expected) in [(&closed, without), (&open, with)] {
            let decision = decide_address(rules, &decide(rules, tunnel("db.example.com", 443)), address);
            assert_eq!(word(&decision), expected, "{address}: {decision}");
        }
    }
}

#[test]
fn allow_private_opens_only_what_its_own_policy_names() {
    let outside = policy(&[hosts(&["db.example.com"])], vec![], Mode::Enforce, false);
    let inside = policy(&[cidrs(&["10.1.0.0/16"])], vec![], Mode::Enforce, true);
    let rules = ruleset(&[outside, inside]);
    let name = decide(&rules, tunnel("db.example.com", 443));
    assert_eq!(word(&decide_address(&rules, &name, "10.1.0.1".parse().unwrap())), "allow");
    assert_eq!(word(&decide_address(&rules, &name, "10.2.0.1".parse().unwrap())), "PrivateAddress");
    let literal = decide(&rules, tunnel("10.1.0.1", 443));
    assert_eq!(word(&decide_address(&rules, &literal, "10.1.0.1".parse().unwrap())), "allow");
}

#[test]
fn a_loopback_that_is_not_the_runs_stays_closed() {
    let open = policy(&[ports(cidrs(&["0.0.0.0/0", "::/0"]), &[443])], vec![], Mode::Enforce, true);
    let rules = Ruleset::parse([("p", &open)], vec![OwnService::Loopback]).unwrap();
    let table = [
        ("127.0.0.1", "OwnService"),
        ("127.9.9.9", "OwnService"),
        ("::1", "OwnService"),
        ("::ffff:127.0.0.1", "OwnService"),
        ("64:ff9b::127.0.0.1", "OwnService"),
        ("10.0.0.1", "allow"),
        ("8.8.8.8", "allow"),
    ];
    for (address, expected) in table {
        let address: IpAddr = address.parse().unwrap();
        let first = decide(&rules, Request::tunnel(Host::Address(address), 443));
        let decision = decide_address(&rules, &first, address);
        assert_eq!(word(&decision), expected, "{decision}");
    }
}

#[test]
fn own_services_stay_closed() {
    let open = policy(&[ports(cidrs(&["0.0.0.0/0"]), &[7000, 7001])], vec![], Mode::Enforce, true);
    let own = ["127.0.0.1:7000", "0.0.0.0:7001"].map(|s| OwnService::Socket(s.parse().unwrap()));
    let rules = Ruleset::parse([("p", &open)], own.to_vec()).unwrap();
    let table = [
        ("127.0.0.1", 7000, "OwnService"),
        ("127.0.0.2", 7000, "allow"),
        ("127.0.0.2", 7001, "OwnService"),
        ("10.0.0.1", 7001, "OwnService"),
        ("8.8.8.8", 7001, "allow"),
    ];
    for (address, port, expected) in table {
        let first = decide(&rules, tunnel(address, port));
        let decision = decide_address(&rules, &first, address.parse().unwrap());
        assert_eq!(word(&decision), expected, "{decision}");
        assert!(decision.is_allowed() || decision.suggestion().is_none());
    }
}

#[test]
fn audit_records_and_never_opens_the_inside() {
    let audit = |closed| policy(&[hosts(&["a.example"])], deny(&[closed], &[]), Mode::Audit, false);
    let enforced = policy(&[hosts(&["e.example"])], vec![], Mode::Enforce, false);
    let alone = ruleset(&[audit("bad.example")]);
    let both = ruleset(&[audit("e.example"), enforced]);
    let table = [
        (&alone, "a.example", "allow"),
        (&alone, "other.example", "audit"),
        (&alone, "bad.example", "audit"),
        (&both, "a.example", "allow"),
        (&both, "e.example", "audit"),
        (&both, "other.example", "NoRule"),
    ];
    for (rules, host, expected) in table {
        assert_eq!(word(&decide(rules, tunnel(host, 443))), expected, "{host}");
    }
    let passed = decide(&alone, tunnel("other.example", 443));
    assert!(passed.is_allowed());
    assert_eq!(word(&decide_address(&alone, &passed, "127.0.0.1".parse().unwrap())), "PrivateAddress");
    assert_eq!(word(&decide_address(&alone, &passed, "8.8.8.8".parse().unwrap())), "audit");
    assert_eq!(word(&decide(&Ruleset::default(), tunnel("a.example", 443))), "NoPolicy");
}

#[test]
fn every_fault_is_said_with_its_place() {
    let rule = Rule {
        name: "r".into(),
        hosts: strings(&[
            "*",
            "ok.example",
            "a.*.example",
            "10.0.0.1",
            "bücher.example",
            "2130706433",
            "0x7f.1",
            "*.",
        ]),
        cidrs: strings(&["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0", "::ffff:10.0.0.0/104"]),
        ports: vec![443, 0, 65_536],
        methods: strings(&["get", "CONNECT"]),
        paths: strings(&["org", "/a?b", "/a/../b"]),
    };
    let spec = EgressPolicySpec { rules: vec![rule], deny: vec![Deny::default()], ..Default::default() };
    let faults = Policy::parse("default", &spec).unwrap_err();
    let expected: Vec<(&str, Fault)> = vec![
        ("rules[0].hosts[0]", HostError::Wildcard.into()),
        ("rules[0].hosts[2]", HostError::Wildcard.into()),
        ("rules[0].hosts[3]", HostError::Address([10, 0, 0, 1].into()).into()),
        ("rules[0].hosts[4]", HostError::Character('ü').into()),
        ("rules[0].hosts[5]", HostError::Numeric.into()),
        ("rules[0].hosts[6]", HostError::Numeric.into()),
        ("rules[0].hosts[7]", HostError::Wildcard.into()),
        ("rules[0].cidrs[0]", CidrError::HostBits("10.0.0.0/8".parse().unwrap()).into()),
        ("rules[0].cidrs[1]", CidrError::Prefix(33).into()),
        ("rules[0].cidrs[2]", CidrError::Form.into()),
        ("rules[0].ports[1]", Fault::Port),
        ("rules[0].ports[2]", Fault::Port),
        ("rules[0].methods[0]", HttpError::Method.into()),
        ("rules[0].methods[1]", HttpError::Method.into()),
        ("rules[0].paths[0]", HttpError::Path.into()),
        ("rules[0].paths[1]", HttpError::Path.into()),
        ("rules[0].paths[2]", HttpError::Path.into()),
        ("deny[0]", Fault::NamesNothing),
    ];
    let found: Vec<_> = faults.iter().map(|f| (f.field.as_str(), f.fault.clone())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_refusal_says_what_would_open_it() {
    let rules = enforce(&[], deny(&["bad.example"], &[]));
    let cases = [
        (tunnel("api.example", 443), "rules: [{hosts: [api.example], ports: [443]}]"),
        (tunnel("[2001:db8::1]", 22), "rules: [{cidrs: [\"2001:db8::1/128\"], ports: [22]}]"),
        (
            Request::plain("api.example".parse().unwrap(), 80, "GET", "/a \"b"),
            "rules: [{hosts: [api.example], ports: [80], methods: [GET], paths: [\"/a \\\"b\"]}]",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(decide(&rules, request).suggestion().unwrap().to_string(), expected);
    }
    assert!(decide(&rules, tunnel("bad.example", 443)).suggestion().is_none());
}

prop_compose! {
    fn a_name()(labels in prop::collection::vec("[a-c]{1,2}", 1..4)) -> String { labels.join(".") + ".example" }
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
    ]
}

proptest! {
    /// Writing a name otherwise never changes the decision.
    #[test]
    fn spelling_does_not_matter(name in a_name(), pattern in a_name(), port in 440u16..446) {
        let rules = enforce(&[hosts(&[&pattern])], vec![]);
        let plain = decide(&rules, tunnel(&name, port));
        let shouted = decide(&rules, tunnel(&format!("{}.", name.to_uppercase()), port));
        prop_assert_eq!(plain, shouted);
    }

    /// A deny rule in any policy wins over every allow rule.
    #[test]
    fn deny_wins(name in a_name(), allowed in prop::collection::vec(a_name(), 0..4), port in 1u16..) {
        let allowed: Vec<_> = allowed.iter().map(|a| ports(hosts(&[a]), &[port.into()])).collect();
        let first = policy(&allowed, vec![], Mode::Enforce, true);
        let second = policy(&[], deny(&[&name], &[]), Mode::Enforce, false);
        let rules = ruleset(&[first, second]);
        prop_assert_eq!(word(&decide(&rules, tunnel(&name, port))), "DenyRule");
    }

    /// What is suggested opens what was refused, and not another port of it.
    #[test]
    fn the_suggestion_works(name in a_name(), port in 1u16..65535) {
        let suggestion = decide(&enforce(&[], vec![]), tunnel(&name, port)).suggestion().unwrap();
        let host = suggestion.to_string();
        let host = host.split(['[', ']']).nth(2).unwrap();
        let opened = enforce(&[ports(hosts(&[host]), &[port.into()])], vec![]);
        prop_assert_eq!(word(&decide(&opened, tunnel(&name, port))), "allow");
        prop_assert_eq!(word(&decide(&opened, tunnel(&name, port + 1))), "PortNotOpen");
    }

    /// Without allowPrivate no address that is not public passes, whatever the rules say.
    #[test]
    fn the_inside_is_closed(address in an_address(), port in 1u16..) {
        let rules = enforce(&[
            ports(cidrs(&["0.0.0.0/0", "::/0"]), &[port.into()]),
            ports(hosts(&["a.example"]), &[port.into()]),
        ], vec![]);
        for host in [Host::Address(address.to_canonical()), "a.example".parse().unwrap()] {
            let decision = decide_address(&rules, &decide(&rules, Request::tunnel(host, port)), address);
            prop_assert_eq!(decision.is_allowed(), scope_of(address) == Scope::Public);
        }
    }

    /// An IPv4 address and its IPv6 clothes are one address.
    #[test]
    fn clothes_do_not_matter(bits in any::<u32>(), prefix in 0u8..=32) {
        let v4 = Ipv4Addr::from(bits);
        prop_assert_eq!(scope_of(v4.into()), scope_of(v4.to_ipv6_mapped().into()));
        let block: Cidr = format!("{}/{prefix}", Ipv4Addr::from(bits & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))).parse().unwrap();
        prop_assert!(block.contains(v4.into()) && block.contains(v4.to_ipv6_mapped().into()));
    }

    /// A pattern without a star matches only itself; parsing never panics.
    #[test]
    fn patterns_are_exact(path in "/[a-c/]{0,6}", other in "/[a-c/]{0,6}", noise in any::<String>()) {
        if let Ok(pattern) = path.parse::<PathPattern>() {
            prop_assert_eq!(pattern.matches(&other), path == other);
        }
        if let Ok(pattern) = format!("{path}*").parse::<PathPattern>() {
            prop_assert_eq!(pattern.matches(&other), other.starts_with(&path));
        }
        let _ = (noise.parse::<Host>(), noise.parse::<HostPattern>(), noise.parse::<Cidr>(), noise.parse::<PathPattern>());
    }
}
