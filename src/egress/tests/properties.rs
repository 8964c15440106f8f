//! What holds for every table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

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
