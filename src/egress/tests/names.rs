//! What a client names, before anybody knows its address.

use super::*;

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
