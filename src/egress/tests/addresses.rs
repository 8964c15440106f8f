//! The addresses behind what was named.

use std::net::IpAddr;

use super::*;

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
