use super::*;

const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF4S5mFXXD3tHXd5lBgIoLEXPg7I1p4Yq0nIrTtAkIok";

fn parse(text: &str) -> Result<AllowedSigners, Vec<LineError>> {
    AllowedSigners::parse(text, &TimeZone::UTC)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_line_binds_principals_to_a_key() {
    let file = format!("# who may sign\n\n  alice@x,*@team.x\tnamespaces=\"git,file\" {ED} a comment\n");
    let signers = parse(&file).unwrap();
    let key = signers.signers()[0].key().key_data().clone();
    let now = at("2026-01-01T00:00:00Z");
    assert_eq!(signers.find(&key, "git", now).unwrap().as_str(), "alice@x,*@team.x");
    assert!(signers.find(&key, "email", now).is_none());
    assert!(signers.allows("bob@team.x", &key, "git", now));
    assert!(!signers.allows("bob@elsewhere", &key, "git", now));
}

#[test]
fn validity_is_inclusive_on_both_ends() {
    let file = format!("a@x valid-after=\"20260101Z\",valid-before=\"20260201Z\" {ED}");
    let signers = parse(&file).unwrap();
    let key = signers.signers()[0].key().key_data().clone();
    for (moment, expected) in [
        ("2025-12-31T23:59:59Z", false),
        ("2026-01-01T00:00:00Z", true),
        ("2026-02-01T00:00:00Z", true),
        ("2026-02-01T00:00:01Z", false),
    ] {
        assert_eq!(signers.find(&key, "git", at(moment)).is_some(), expected, "{moment}");
    }
    assert!(signers.lists(&key));
}

#[test]
fn the_first_valid_line_names_the_principal() {
    let file = format!("old@x valid-before=\"20250101Z\" {ED}\nnew@x {ED}\n");
    let signers = parse(&file).unwrap();
    let key = signers.signers()[0].key().key_data().clone();
    assert_eq!(signers.find(&key, "git", at("2024-01-01T00:00:00Z")).unwrap().as_str(), "old@x");
    assert_eq!(signers.find(&key, "git", at("2026-01-01T00:00:00Z")).unwrap().as_str(), "new@x");
}

#[test]
fn quoted_principals_may_hold_blanks() {
    let signers = parse(&format!("\"Alice A,bob@x\" {ED}")).unwrap();
    assert!(signers.signers()[0].principals().matches("Alice A"));
}

#[test]
fn every_bad_line_is_named() {
    let file = format!(
        "alice@x\n\
         alice@x {ED}\n\
         alice@x cert-authority {ED}\n\
         alice@x colour=\"red\" {ED}\n\
         alice@x namespaces=git {ED}\n\
         alice@x namespaces=\"git {ED}\n\
         alice@x valid-after=\"tomorrow\" {ED}\n\
         alice@x valid-after=\"20260101Z\",valid-before=\"20260101Z\" {ED}\n\
         alice@x valid-after=\"20260101Z\",valid-after=\"20260101Z\" {ED}\n\
         !alice@x {ED}\n\
         \"alice@x {ED}\n\
         alice@x ssh-ed25519 AAAA\n\
         alice@x namespaces=\"git\"\n"
    );
    let errors = parse(&file).unwrap_err();
    let got: Vec<_> = errors.into_iter().map(|error| (error.line, error.reason)).collect();
    assert_eq!(
        got,
        [
            (1, Reason::TooFewFields),
            (3, Reason::CertAuthority),
            (4, Reason::UnknownOption("colour".into())),
            (5, Reason::Value("namespaces")),
            (6, Reason::Quote),
            (7, Reason::Time("tomorrow".into())),
            (8, Reason::EmptyValidity),
            (9, Reason::Twice("valid-after")),
            (10, Reason::Principals),
            (11, Reason::Quote),
            (12, Reason::UnknownOption("ssh-ed25519".into())),
            (13, Reason::TooFewFields),
        ]
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z!*?,\"\\\\= \t#0-9Z-]{0,120}") {
        let _ = parse(&text);
        let _ = parse(&format!("{text} {ED}"));
        let _ = parse(&format!("a@x {text} {ED}"));
    }
}
