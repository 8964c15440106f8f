//! Who we are.

use ostler::{
    class::Class,
    git::{Credential, Error, InvalidIdentity, Remote, SshError, SshIdentity, secret},
};

use super::{fetch, identity, mirror, remote, told};
use crate::servers::{
    repo::Repo,
    ssh::{Options, Ssh, keygen},
};

#[test]
fn each_kind_of_key_gets_in() {
    let server = Ssh::start(&Options::default());
    let repo = Repo::with_readme();
    let mirror = mirror(&repo);
    for (kind, bits) in
        [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")]
    {
        let private = server.user(&format!("{kind}{bits}"), &["-t", kind, "-b", bits]);
        fetch(&mirror, &remote(&server, &repo, identity(&private, &server.known_hosts())))
            .unwrap_or_else(|error| panic!("{kind} {bits}: {}", told(&error)));
    }
    assert_eq!(server.log().matches("Accepted publickey").count(), 5);
}

#[test]
fn rsa_signs_with_either_sha_2() {
    for hash in ["rsa-sha2-256", "rsa-sha2-512"] {
        let more = format!("PubkeyAcceptedAlgorithms {hash}");
        let server = Ssh::start(&Options { more: &more, ..Options::default() });
        let private = server.user("user", &["-t", "rsa", "-b", "2048"]);
        let repo = Repo::with_readme();
        fetch(&mirror(&repo), &remote(&server, &repo, identity(&private, &server.known_hosts()))).unwrap();
    }
}

#[test]
fn a_passphrase_opens_a_key() {
    let server = Ssh::start(&Options::default());
    let known_hosts = server.known_hosts();
    for (name, kind) in [("a", "ed25519"), ("b", "rsa")] {
        let private = server.user(name, &["-t", kind, "-a", "2", "-N", "c0rrect horse"]).into();
        let with = |passphrase: Option<&str>| {
            SshIdentity::new(&private, passphrase.map(Into::into).as_ref(), &known_hosts)
        };
        assert!(matches!(with(None), Err(InvalidIdentity::Encrypted)));
        let wrong = with(Some("wr0ng"));
        assert!(matches!(wrong, Err(InvalidIdentity::Passphrase)), "{wrong:?}");
        assert!(!format!("{wrong:?}").contains("wr0ng"));
        let right = with(Some("c0rrect horse")).unwrap();
        let repo = Repo::with_readme();
        fetch(&mirror(&repo), &remote(&server, &repo, Credential::Ssh(right))).unwrap();
    }
}

#[test]
fn a_wrong_identity_is_refused_by_name() {
    let server = Ssh::start(&Options::default());
    let repo = Repo::with_readme();
    let wrong = keygen(server.folder(), "wrong", &["-t", "ed25519"]);
    server.user("right", &["-t", "ed25519"]);
    let credential = identity(&wrong, &server.known_hosts());
    let Credential::Ssh(identity) = &credential else { panic!("it is an identity") };
    let fingerprint = identity.fingerprint();
    let error = fetch(&mirror(&repo), &remote(&server, &repo, credential)).unwrap_err();
    let text = told(&error);
    assert!(text.contains(&fingerprint) && text.contains("refused the identity"), "{text}");
    assert_eq!(error.class(), Class::Invalid);
    let Error::Unauthenticated { sent: true, source: Some(source), .. } = error else { panic!("{text}") };
    assert!(matches!(*source, SshError::IdentityRefused { .. }), "{text}");
    let secret = wrong.lines().nth(2).unwrap();
    assert!(!format!("{text} {source:?}").contains(secret));
}

#[test]
fn a_command_that_is_not_allowed_is_the_servers_answer() {
    let server = Ssh::start(&Options {
        more: "ForceCommand echo ERROR: access denied >&2; exit 1",
        ..Options::default()
    });
    let private = server.user("user", &["-t", "ed25519"]);
    let repo = Repo::with_readme();
    let error = fetch(&mirror(&repo), &remote(&server, &repo, identity(&private, &server.known_hosts())))
        .unwrap_err();
    let text = told(&error);
    assert!(matches!(error, Error::Refused { retry: false, .. }) && text.contains("access denied"), "{text}");
}

#[test]
fn the_keys_of_a_secret_make_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let private = keygen(folder.path(), "plain", &["-t", "ed25519"]);
    let locked = keygen(folder.path(), "locked", &["-t", "ed25519", "-a", "2", "-N", "open"]);
    let public = std::fs::read_to_string(folder.path().join("plain.pub")).unwrap();
    let known = format!("git.example.com {public}");
    let location = "git@git.example.com:team/a.git".parse().unwrap();
    let of = |keys: &[(&str, &str)]| {
        secret::credential(&location, |key| {
            keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes())
        })
    };
    for keys in [
        &[("identity", &*private), ("known_hosts", &*known)][..],
        &[("identity", &locked), ("known_hosts", &known), ("passphrase", "open\n")],
        &[("identity", &private), ("known_hosts", &known), ("password", "for https")],
    ] {
        assert!(matches!(of(keys), Ok(Credential::Ssh(_))));
    }
    for (keys, why) in [
        (&[("password", "p")][..], "has no key identity"),
        (&[("identity", &*private)], "has no key known_hosts"),
        (&[("identity", &private), ("known_hosts", "# nobody\n")], "known_hosts has no line"),
        (&[("identity", &private), ("known_hosts", "a b c")], "line 1 of known_hosts"),
        (&[("identity", &public), ("known_hosts", &known)], "not a private key"),
        (&[("identity", &locked), ("known_hosts", &known)], "no passphrase"),
        (&[("identity", &locked), ("known_hosts", &known), ("passphrase", "shut")], "does not open"),
    ] {
        let error = of(keys).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("shut") && !error.contains(private.lines().nth(2).unwrap()));
    }
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let server = Ssh::start(&Options::default());
    let ssh = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let build = |url: &str, credential: &Credential, proxy: bool| {
        let builder = Remote::builder(url.parse().unwrap()).credential(credential.clone());
        if proxy { builder.proxy("http://proxy.example.com:3128").unwrap().build() } else { builder.build() }
    };
    let token = Credential::Bearer("t0ken".into());
    for (url, credential, proxy) in [
        ("ssh://git.example.com/a", &token, false),
        ("https://git.example.com/a", &ssh, false),
        ("ssh://git.example.com/a", &ssh, true),
    ] {
        let error = build(url, credential, proxy).unwrap_err();
        assert!(matches!(error, Error::Settings { .. }), "{url}: {error:?}");
    }
    let repo = Repo::with_readme();
    let error = fetch(&mirror(&repo), &remote(&server, &repo, Credential::None)).unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { sent: false, .. }), "{error:?}");
}
