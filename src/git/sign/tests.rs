use super::*;
use jiff::tz::TimeZone;

fn signers(text: &str) -> AllowedSigners {
    AllowedSigners::parse(text, &TimeZone::UTC).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn a_signature_verifies_only_over_its_own_payload() {
    let key = SigningKey::generate("ostler").unwrap();
    let allowed = signers(&key.allowed_signers_line("ostler@example.com").unwrap());
    let armor = key.sign(b"payload").unwrap();
    let verdict = verify(b"payload", Some(armor.as_bytes()), &allowed, now());
    assert!(matches!(&verdict, Verdict::Verified { principal, fingerprint }
        if principal.as_str() == "ostler@example.com" && *fingerprint == key.fingerprint()));
    assert_eq!(verify(b"Payload", Some(armor.as_bytes()), &allowed, now()), Verdict::Bad);
    assert_eq!(verify(b"payload", None, &allowed, now()), Verdict::Unsigned);
    assert_eq!(verify(b"payload", Some(b"-----BEGIN PGP SIGNATURE-----"), &allowed, now()), Verdict::Bad);
}

#[test]
fn a_foreign_key_is_unknown_not_bad() {
    let (ours, foreign) = (SigningKey::generate("").unwrap(), SigningKey::generate("").unwrap());
    let allowed = signers(&ours.allowed_signers_line("a@x").unwrap());
    let armor = foreign.sign(b"payload").unwrap();
    assert_eq!(
        verify(b"payload", Some(armor.as_bytes()), &allowed, now()),
        Verdict::UnknownKey { fingerprint: foreign.fingerprint() }
    );
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let key = SigningKey::generate("ostler").unwrap();
    key.store(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(key.store(&path), Err(Error::Io { .. })));
    assert_eq!(SigningKey::load(&path).unwrap().fingerprint(), key.fingerprint());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(SigningKey::load(&path), Err(Error::Mode { mode: 0o640, .. })));
}

#[test]
fn a_key_of_somebody_else_may_be_read_by_its_group() {
    for (mode, is_ours, expected) in [
        (0o600, true, true),
        (0o400, true, true),
        (0o440, true, false),
        (0o440, false, true),
        (0o640, false, true),
        (0o660, false, false),
        (0o444, false, false),
    ] {
        assert_eq!(super::is_private(mode, is_ours), expected, "{mode:o}");
    }
}

#[test]
fn debug_output_has_no_secret() {
    let key = SigningKey::generate("ostler").unwrap();
    let shown = format!("{key:?}");
    assert!(shown.contains(&key.fingerprint().to_string()), "{shown}");
    assert!(shown.len() < 120, "{shown}");
}

#[test]
fn mutated_armor_never_panics_and_never_becomes_another_signature() {
    let key = SigningKey::generate("").unwrap();
    let allowed = signers(&key.allowed_signers_line("a@x").unwrap());
    let armor = key.sign(b"payload").unwrap().into_bytes();
    let decoded = SshSig::from_pem(&armor).unwrap();
    let mut refused = 0;
    for at in 0..armor.len() {
        let mut bad = armor.clone();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        if verify(b"payload", Some(&bad), &allowed, now()).is_verified() {
            // Base64 can write the same bytes in more than one way.
            assert_eq!(SshSig::from_pem(&bad).unwrap(), decoded);
        } else {
            refused += 1;
        }
    }
    assert!(refused * 10 > armor.len() * 9, "{refused} of {}", armor.len());
}
