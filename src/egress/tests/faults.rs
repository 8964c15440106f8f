//! Policies that cannot be read.

use super::*;

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
