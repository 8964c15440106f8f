use super::{Lab, commit, write};
use jiff::tz::TimeZone;
use ostler::git::{
    Repository,
    sign::{SigningKey, Verdict, verify_commit},
    signers::AllowedSigners,
};

fn keygen(lab: &Lab, name: &str, args: &[&str]) -> String {
    let path = lab.path(name);
    let made = lab
        .command("ssh-keygen", lab.root.path())
        .args(["-q", "-N", "", "-C", "test", "-f"])
        .arg(&path)
        .args(args)
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap()
}

fn signers(text: &str) -> AllowedSigners {
    AllowedSigners::parse(text, &TimeZone::UTC).unwrap()
}

#[test]
fn git_accepts_our_signature_and_names_the_principal() {
    let lab = Lab::new();
    let (repository, base) = lab.seeded("r", &[("a", "1\n")]);
    let key = SigningKey::generate("ostler").unwrap();
    let line = key.allowed_signers_line("ostler@example.com").unwrap();
    write(&lab.path("signers"), &line);
    let id = commit(&repository, Some(base), &[("runs/x/result.yaml", "phase: Succeeded\n")], Some(&key))
        .to_string();
    let file = format!("gpg.ssh.allowedSignersFile={}", lab.path("signers").display());
    let verified = lab.try_git(&repository, &["-c", &file, "verify-commit", &id]);
    let text = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{text}");
    assert!(text.contains("Good \"git\" signature for ostler@example.com"), "{text}");
    assert!(text.contains(&key.fingerprint().to_string()), "{text}");
    lab.fsck(&repository);

    // A second key that the file does not name.
    let other = SigningKey::generate("other").unwrap();
    let id = commit(&repository, Some(base), &[("b", "1\n")], Some(&other)).to_string();
    assert!(!lab.try_git(&repository, &["-c", &file, "verify-commit", &id]).status.success());
}

#[test]
fn a_stored_key_is_one_that_ssh_keygen_reads() {
    let lab = Lab::new();
    let key = SigningKey::generate("ostler").unwrap();
    key.store(&lab.path("key")).unwrap();
    let shown = lab.command("ssh-keygen", lab.root.path()).args(["-y", "-f", "key"]).output().unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), key.public_line().unwrap());
    keygen(&lab, "theirs", &["-t", "ed25519"]);
    SigningKey::load(&lab.path("theirs")).unwrap();
    keygen(&lab, "rsa", &["-t", "rsa", "-b", "2048"]);
    let refused = SigningKey::load(&lab.path("rsa")).unwrap_err().to_string();
    assert!(refused.contains("ed25519 only"), "{refused}");
}

/// Commits signed by the `git` and `ssh-keygen` programs with each kind of key.
#[test]
fn we_accept_what_git_signs() {
    let lab = Lab::new();
    let (repository, _) = lab.seeded("r", &[("a", "1\n")]);
    let work = lab.path("r-work");
    for (name, args) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("ecdsa256", &["-t", "ecdsa", "-b", "256"]),
        ("ecdsa384", &["-t", "ecdsa", "-b", "384"]),
        ("ecdsa521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa3072", &["-t", "rsa", "-b", "3072"]),
    ] {
        let public = keygen(&lab, name, args);
        let key = format!("user.signingKey={}", lab.path(name).display());
        let signed = ["-c", "gpg.format=ssh", "-c", &key, "commit", "-q", "-S", "--allow-empty", "-m", name];
        lab.git(&work, &signed);
        let id = lab.head(&work, "HEAD");
        let bytes = Repository::open(&work).unwrap().commit_bytes(id).unwrap();
        let allowed = signers(&format!("*@example.com namespaces=\"git\" {public}"));
        match verify_commit(&bytes, &allowed) {
            Verdict::Verified { principal, .. } => assert!(principal.matches("ann@example.com"), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        let verdict = verify_commit(&bytes, &AllowedSigners::default());
        assert!(matches!(verdict, Verdict::UnknownKey { .. }), "{name}: {verdict:?}");
        let expired = signers(&format!("*@example.com valid-before=\"20260101Z\" {public}"));
        assert!(!verify_commit(&bytes, &expired).is_verified(), "{name}");
        let tampered = String::from_utf8(bytes).unwrap().replace("Ann Author", "Bob Author");
        assert_eq!(verify_commit(tampered.as_bytes(), &allowed), Verdict::Bad, "{name}");
    }
    let unsigned = Repository::open(&repository).unwrap();
    let bytes = unsigned.commit_bytes(lab.head(&repository, "main")).unwrap();
    assert_eq!(verify_commit(&bytes, &AllowedSigners::default()), Verdict::Unsigned);
}

/// Both read the same file and must come to the same answer about the same signature.
#[test]
fn allowed_signers_files_mean_the_same_to_ssh_keygen() {
    let lab = Lab::new();
    let key = SigningKey::generate("k").unwrap();
    let public = key.public_line().unwrap();
    let payload = b"payload";
    let armor = key.sign(payload).unwrap();
    write(&lab.path("sig"), format!("{armor}\n"));
    write(&lab.path("payload"), payload);
    for (line, identity, time) in [
        (format!("a@x {public}"), "a@x", "20260101000000Z"),
        (format!("a@x,!b@x,*@y {public}"), "b@x", "20260101000000Z"),
        (format!("*@y,!b@y {public}"), "c@y", "20260101000000Z"),
        (format!("*@y,!b@y {public}"), "b@y", "20260101000000Z"),
        (format!("?@x {public}"), "ab@x", "20260101000000Z"),
        (format!("\"a@x\" namespaces=\"file,git\" {public} comment"), "a@x", "20260101000000Z"),
        (format!("a@x namespaces=\"file\" {public}"), "a@x", "20260101000000Z"),
        (format!("a@x namespaces=\"g*\" {public}"), "a@x", "20260101000000Z"),
        (format!("a@x NAMESPACES=\"git\" {public}"), "a@x", "20260101000000Z"),
        (format!("a@x valid-after=\"20260101Z\" {public}"), "a@x", "20251231235959Z"),
        (format!("a@x valid-after=\"20260101Z\" {public}"), "a@x", "20260101000000Z"),
        (format!("a@x valid-before=\"20260101\" {public}"), "a@x", "20260101000000Z"),
        (format!("a@x valid-before=\"202601010000\" {public}"), "a@x", "20260101000001Z"),
        (
            format!("a@x valid-after=\"20260101Z\",valid-before=\"20270101Z\" {public}"),
            "a@x",
            "20260601000000Z",
        ),
    ] {
        write(&lab.path("signers"), format!("{line}\n"));
        let option = format!("-Overify-time={time}");
        let theirs = lab
            .command("ssh-keygen", lab.root.path())
            .args(["-Y", "verify", "-n", "git", "-f", "signers", "-s", "sig", "-I", identity, &option])
            .stdin(std::fs::File::open(lab.path("payload")).unwrap())
            .output()
            .unwrap();
        let (date, clock) = (&time[..8], &time[8..14]);
        let at = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &date[..4],
            &date[4..6],
            &date[6..],
            &clock[..2],
            &clock[2..4],
            &clock[4..]
        );
        let signature = ssh_key::SshSig::from_pem(&armor).unwrap();
        let ours = signers(&line).allows(identity, signature.public_key(), "git", at.parse().unwrap());
        assert_eq!(ours, theirs.status.success(), "{line} as {identity} at {time}: {theirs:?}");
    }
}
