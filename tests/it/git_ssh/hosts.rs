//! Which servers are believed.

use ostler::{
    class::Class,
    git::{Error, SshError},
};

use super::{fetch, identity, mirror, remote, told};
use crate::servers::{
    repo::Repo,
    ssh::{Options, Ssh, keygen, public, run},
};

/// What a fetch with this `known_hosts` comes to.
fn with(server: &Ssh, known_hosts: &str) -> Result<(), Error> {
    let private = server.user("user", &["-t", "ed25519"]);
    std::fs::remove_file(server.folder().join("user")).unwrap();
    let repo = Repo::with_readme();
    fetch(&mirror(&repo), &remote(server, &repo, identity(&private, known_hosts))).map(drop)
}

fn refused(server: &Ssh, known_hosts: &str) -> (SshError, String) {
    let error = with(server, known_hosts).unwrap_err();
    let text = told(&error);
    assert_eq!(error.class(), Class::Invalid, "{text}");
    assert!(!server.log().contains("Accepted"), "the identity is shown to nobody else");
    match error {
        Error::Ssh { source, .. } => (*source, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_with_any_of_the_known_keys_is_believed() {
    let kinds = ["rsa", "ecdsa", "ed25519"];
    let server = Ssh::start(&Options { host_keys: &kinds, ..Options::default() });
    for kind in kinds {
        // The server has all of them and would rather show another.
        with(&server, &format!("{} {}", server.listed(), server.host_key(kind))).unwrap();
    }
    // By its name alone, as OpenSSH does for a port that is not listed; and among others.
    with(&server, &format!("other.example.com,127.0.0.* {}", server.host_key("ed25519"))).unwrap();
}

#[test]
fn a_hashed_line_is_a_line() {
    let server = Ssh::start(&Options::default());
    let file = server.folder().join("hashed");
    std::fs::write(&file, server.known_hosts()).unwrap();
    run(server.folder(), &["-q", "-H", "-f", "hashed"]);
    let hashed = std::fs::read_to_string(&file).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    with(&server, &hashed).unwrap();
}

#[test]
fn an_unknown_host_is_refused_with_the_line_to_add() {
    let server = Ssh::start(&Options::default());
    let other = format!("git.example.com {}", server.host_key("ed25519"));
    let (error, text) = refused(&server, &other);
    let SshError::UnknownHost { line, fingerprint, .. } = error else { panic!("{text}") };
    assert!(
        text.contains(&line) && text.contains(&fingerprint) && fingerprint.starts_with("SHA256:"),
        "{text}"
    );
    assert_eq!(line, server.known_hosts().trim());
    with(&server, &line).unwrap();
}

#[test]
fn a_changed_key_is_refused_as_changed() {
    let server = Ssh::start(&Options::default());
    keygen(server.folder(), "old", &["-t", "ed25519"]);
    let old = public(&server.folder().join("old.pub"));
    let (error, text) = refused(&server, &format!("{} {old}", server.listed()));
    assert!(matches!(error, SshError::ChangedHost { .. }) && text.contains("has changed"), "{text}");
    // Of another kind, too: the server does not get to choose what we know it by.
    keygen(server.folder(), "older", &["-t", "ecdsa"]);
    let older = public(&server.folder().join("older.pub"));
    let (error, text) = refused(&server, &format!("{} {older}", server.listed()));
    assert!(matches!(error, SshError::ChangedHost { .. }), "{text}");
}

#[test]
fn a_revoked_key_is_refused_though_it_is_known() {
    let server = Ssh::start(&Options::default());
    let lines = format!("{}@revoked * {}", server.known_hosts(), server.host_key("ed25519"));
    let (error, text) = refused(&server, &lines);
    assert!(matches!(error, SshError::RevokedHost { .. }) && text.contains("revoked"), "{text}");
}

#[test]
fn an_authority_vouches_for_hosts() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let server = Ssh::start(&Options {
            host_keys: &[kind],
            certified_for: Some("git.example.com,127.0.0.1"),
            ..Options::default()
        });
        let authority = format!("@cert-authority {} {}", server.listed(), server.authority());
        with(&server, &authority).unwrap();
        // Nobody asks for certificates who knows the key itself.
        with(&server, &format!("{} {}", server.listed(), server.host_key(kind))).unwrap();
    }
}

#[test]
fn an_authority_vouches_for_nobody_else() {
    let certified_for = Some("git.example.com");
    let server = Ssh::start(&Options { certified_for, ..Options::default() });
    let authority = |hosts: &str| format!("@cert-authority {hosts} {}", server.authority());
    let (error, text) = refused(&server, &authority("127.0.0.1"));
    assert!(matches!(error, SshError::HostCertificate { .. }) && text.contains("other hosts"), "{text}");
    let (error, text) = refused(&server, &authority("*.example.com"));
    assert!(matches!(error, SshError::UnknownHost { .. }), "{text}");
    keygen(server.folder(), "foreign", &["-t", "ed25519"]);
    let foreign = public(&server.folder().join("foreign.pub"));
    let (error, text) = refused(&server, &format!("@cert-authority * {foreign}"));
    assert!(matches!(error, SshError::UnknownHost { .. }), "{text}");
    let revoked = format!("{}\n@revoked * {}", authority("127.0.0.1"), server.authority());
    let (error, text) = refused(&server, &revoked);
    assert!(matches!(error, SshError::RevokedHost { .. }), "{text}");
    // Its key is known besides: a certificate of somebody else takes nothing away.
    with(&server, &format!("@cert-authority * {foreign}\n{}", server.known_hosts())).unwrap();
}
