//! Patterns of code repositories: the cases of `repositories.yaml`, and that Git reads what is allowed as we do.

use ostler::{
    git::Location,
    repositories::{Address, Allowed},
};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    patterns: Vec<String>,
    #[serde(default)]
    allowed: Vec<String>,
    #[serde(default)]
    refused: Vec<String>,
    #[serde(default)]
    invalid: Vec<String>,
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("repositories.yaml")).unwrap()
}

/// Where Git would go is where we think that it goes.
fn assert_same_place(url: &str, ours: &Address) {
    let theirs: Location = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    let bare = |host: &str| host.trim_end_matches('.').to_owned();
    let hosts = (ours.host().map(|host| bare(&host.to_string())), theirs.host().map(bare));
    assert_eq!(hosts.0, hosts.1, "{url}: the host");
    assert_eq!(ours.port(), theirs.port(), "{url}: the port");
    // normalised as theirs is written, it is still the same place
    assert_eq!(&theirs.to_string().parse::<Address>().unwrap(), ours, "{url}: as it is dialled");
}

#[test]
fn patterns_allow_what_they_stand_for_and_nothing_else() {
    let cases = cases();
    assert!(cases.len() > 5);
    for Case { name, patterns, allowed, refused, invalid } in cases {
        let rule = Allowed::new(Some(&patterns)).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for url in allowed {
            rule.check(&url).unwrap_or_else(|error| panic!("{name}: {url}: {error:?}"));
            assert_same_place(&url, &url.parse().unwrap());
        }
        for url in refused {
            assert!(rule.check(&url).is_err(), "{name}: {url:?} is allowed");
        }
        for pattern in invalid {
            assert!(Allowed::new(Some(std::slice::from_ref(&pattern))).is_err(), "{name}: {pattern:?}");
        }
    }
}

#[test]
fn without_a_list_everything_is_allowed_and_a_refusal_repeats_no_secret() {
    assert_eq!(Allowed::new(None).unwrap().check("what ever"), Ok(()));
    let none = Allowed::new(Some(&[])).unwrap();
    for url in ["https://ada:hunter2@git.example.com/a", "https://git.example.com/a?token=hunter2"] {
        let refused = none.check(url).unwrap_err();
        assert!(!format!("{refused} {refused:?} {}", refused.in_words()).contains("hunter2"));
    }
}

/// Texts that are nearly URLs.
fn url() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "https://",
        "http://",
        "ssh://",
        "file://",
        "git@",
        "a.example",
        "a.example.",
        "A.Example",
        "127.0.0.1",
        "[::1]",
        "[",
        "]",
        ":",
        ":22",
        ":443",
        ":022",
        "@",
        "/",
        "//",
        "/x",
        "/y.git",
        "/..",
        "/.",
        "..",
        "~x",
        "%2e",
        "\\",
        "?",
        "#",
        "*",
        " ",
        "\t",
        "0x7f",
        "-",
        "é",
    ]);
    prop::collection::vec(part, 1..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever we take for an address is, to Git, one at the same place; or none, and then nothing is cloned.
    #[test]
    fn what_we_read_git_reads_the_same(url in url()) {
        if let Ok(ours) = url.parse::<Address>() && url.parse::<Location>().is_ok() {
            assert_same_place(&url, &ours);
        }
    }
}
