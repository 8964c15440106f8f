use std::process::Command;

use super::*;

/// Three keys: made with ssh-keygen for this file, their private halves thrown away.
const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBaY0UNpOaTWqQlWYl0ZtnalXpkSCgRhHaAGfT/57KYP";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIym0QR725tX0alkukk31fTbxNTntIfcqeFpXYxtOHsI";
const C: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQthpcX7Qd4AkFDxcWT5f4vivq1gunu0K7gjTCF6iwb";

/// `git.example.com` and `[git.example.com]:2222`, by `ssh-keygen -H`.
const HASHED: &str = "|1|cZGU22/kUkLH7bOzl40qvf6ehXI=|9dnCyYLXDyQHfVpV4Vu9NL/noyc=";
const HASHED_2222: &str = "|1|QF0sTG3xIBKjSHEY2A3Am2S0vVY=|UJlz4RCqchd4HmxbPdPAATYoeNk=";

fn key(text: &str) -> KeyData {
    PublicKey::from_openssh(text).unwrap().key_data().clone()
}

/// What a file says of key [`A`] at a host; keys are written as their letters.
fn judged(lines: &str, name: &str, port: u16) -> Verdict {
    let text =
        lines.replace(" A", &format!(" {A}")).replace(" B", &format!(" {B}")).replace(" C", &format!(" {C}"));
    KnownHosts::parse(&text).unwrap().judge(Host { name, port }, &key(A))
}

#[test]
fn a_file_judges_a_key_at_a_host() {
    use Verdict::{Changed, Known, Revoked, Unknown};
    let git = "git.example.com";
    for (lines, name, port, expected) in [
        ("git.example.com A", git, 22, Known),
        ("git.example.com A a comment of words", git, 22, Known),
        ("# a comment\n\n  git.example.com A", git, 22, Known),
        ("Git.Example.COM A", git, 22, Known),
        ("git.example.com B", git, 22, Changed),
        ("git.example.com B\ngit.example.com A", git, 22, Known),
        ("other.example.com A", git, 22, Unknown),
        ("", git, 22, Unknown),
        ("git.example.co A", git, 22, Unknown),
        ("a,git.example.com,b A", git, 22, Known),
        ("*.example.com A", git, 22, Known),
        ("g?t.example.com A", git, 22, Known),
        ("*.example.com,!git.example.com A", git, 22, Unknown),
        ("!git.example.com,* A", git, 22, Unknown),
        ("!other.example.com,*.example.com A", git, 22, Known),
        ("* B", git, 22, Changed),
        // A port of its own.
        ("[git.example.com]:2222 A", git, 2222, Known),
        ("[git.example.com]:2222 A", git, 22, Unknown),
        ("[git.example.com]:2222 A", git, 2223, Unknown),
        ("git.example.com A", git, 2222, Known),
        ("git.example.com A\n[git.example.com]:2222 B", git, 2222, Changed),
        ("[git.example.com]:22 A", git, 22, Unknown),
        ("[*.example.com]:* A", git, 2222, Known),
        // Addresses.
        ("::1 A", "::1", 22, Known),
        ("[::1]:2222 A", "::1", 2222, Known),
        ("192.0.2.1 A", "192.0.2.1", 22, Known),
        // Marked lines.
        ("git.example.com A\n@revoked git.example.com A", git, 22, Revoked),
        ("@revoked * A\ngit.example.com A", git, 22, Revoked),
        ("@revoked git.example.com A\n[git.example.com]:2222 A", git, 2222, Revoked),
        ("@revoked other.example.com A\ngit.example.com A", git, 22, Known),
        ("@revoked * B\ngit.example.com A", git, 22, Known),
        ("@cert-authority git.example.com A", git, 22, Unknown),
        ("@cert-authority * C\ngit.example.com B", git, 22, Changed),
        // Of protocol 1.
        ("git.example.com 1024 35 1234567\ngit.example.com A", git, 22, Known),
    ] {
        assert_eq!(judged(lines, name, port), expected, "{name}:{port} in\n{lines}");
    }
    for (hashed, port, expected) in
        [(HASHED, 22, Known), (HASHED, 2222, Known), (HASHED_2222, 2222, Known), (HASHED_2222, 22, Unknown)]
    {
        assert_eq!(judged(&format!("{hashed} A"), git, port), expected, "{hashed} at {port}");
        assert_eq!(judged(&format!("{hashed} A"), "git.example.org", port), Unknown);
    }
    assert_eq!(judged(&format!("{HASHED} B"), git, 22), Changed);
    assert_eq!(judged(&format!("git.example.com A\n@revoked {HASHED} A"), git, 22), Revoked);
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    for line in [
        "git.example.com",
        "git.example.com ssh-ed25519",
        "git.example.com ssh-ed25519 AAAA",
        "@trusted git.example.com A",
        "!git.example.com A",
        "|1|salt A",
        "|1|?|? A",
        "|2|c2FsdA==|aGFzaA== A",
    ] {
        let text = format!("# first\n{}\n", line.replace(" A", &format!(" {A}")));
        let read = KnownHosts::parse(&text);
        if line.starts_with("|2|") {
            // Not a hash that anybody knows; as a name it is nobody's.
            assert!(read.is_ok());
            continue;
        }
        assert_eq!(read.unwrap_err().to_string(), "line 2 of known_hosts is malformed", "{line}");
    }
}

#[test]
fn kinds_of_known_keys_are_told() {
    let file = KnownHosts::parse(&format!("a {A}\n@cert-authority b {B}\n[c]:2222 {C}")).unwrap();
    let of = |name, port| file.algorithms(Host { name, port });
    assert_eq!(of("a", 22), [Algorithm::Ed25519]);
    assert_eq!((of("b", 22), of("c", 22)), (vec![], vec![]));
    assert_eq!(of("c", 2222), [Algorithm::Ed25519]);
    assert!(
        file.has_authority(Host { name: "b", port: 22 }) && !file.has_authority(Host { name: "a", port: 22 })
    );
}

/// The program finds the same lines as we do, and what it hashes means the same.
#[test]
fn the_ssh_keygen_program_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let run = |arguments: &[&str]| {
        Command::new("ssh-keygen").args(arguments).arg("-f").arg(&file).output().unwrap()
    };
    let lines = format!(
        "git.example.com,192.0.2.7 {A}\n[git.example.com]:2222 {A}\n[::1]:2022 {A}\n::1 {A}\n*.wild.example,!bad.wild.example {A}\n"
    );
    for hashed in [false, true] {
        std::fs::write(&file, &lines).unwrap();
        if hashed {
            assert!(run(&["-H"]).status.success());
        }
        let read = KnownHosts::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for (name, port) in [
            ("git.example.com", 22),
            ("git.example.com", 2222),
            ("192.0.2.7", 22),
            ("192.0.2.8", 22),
            ("::1", 22),
            ("::1", 2022),
            ("a.wild.example", 22),
            ("bad.wild.example", 22),
        ] {
            let host = Host { name, port };
            let found = run(&["-F", &host.listed()]).status.success();
            let known = read.judge(host, &key(A)) == Verdict::Known;
            assert_eq!(known, found, "{} in\n{lines}hashed: {hashed}", host.listed());
        }
    }
}

/// Certificates of real authorities, made by the program.
#[test]
fn certificates_count_for_their_hosts_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let done =
            Command::new("ssh-keygen").current_dir(folder.path()).arg("-q").args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    for name in ["authority", "other", "host"] {
        run(&["-t", "ed25519", "-N", "", "-f", name]);
    }
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let file =
        KnownHosts::parse(&format!("@cert-authority *.example.com {}", text("authority.pub"))).unwrap();
    let host = Host { name: "git.example.com", port: 22 };
    // 2033-05-18, in the middle of the certificates' time.
    let now = 2_000_000_000;
    for (authority, arguments, at, expected) in [
        ("authority", &["-h", "-n", "git.example.com"][..], now, Some(Ok(()))),
        ("authority", &["-h", "-n", "a.example.com,git.example.com"], now, Some(Ok(()))),
        ("authority", &["-h", "-n", "*.example.com"], now, Some(Ok(()))),
        ("authority", &["-h", "-n", "a.example.com"], now, Some(Err(BadCertificate::Principal))),
        ("authority", &["-h"], now, Some(Err(BadCertificate::Principal))),
        ("authority", &["-n", "git.example.com"], now, Some(Err(BadCertificate::Kind))),
        ("authority", &["-h", "-n", "git.example.com"], 1_000_000_000, Some(Err(BadCertificate::Time))),
        ("authority", &["-h", "-n", "git.example.com"], 3_000_000_000, Some(Err(BadCertificate::Time))),
        ("other", &["-h", "-n", "git.example.com"], now, None),
    ] {
        let validity = ["-s", authority, "-I", "id", "-V", "20300101:20400101"];
        run(&[&validity[..], arguments, &["host.pub"]].concat());
        let certificate = Certificate::from_openssh(&text("host-cert.pub")).unwrap();
        assert_eq!(file.vouched(host, &certificate, at), expected, "{authority} {arguments:?} at {at}");
        let elsewhere = Host { name: "git.example.org", port: 22 };
        assert_eq!(
            file.vouched(elsewhere, &certificate, at),
            None,
            "the authority speaks for its hosts only"
        );
    }
    // One that was changed after it was signed.
    run(&[
        "-s",
        "authority",
        "-I",
        "id",
        "-V",
        "20300101:20400101",
        "-h",
        "-n",
        "bad.example.com",
        "host.pub",
    ]);
    let forged = Certificate::from_openssh(&text("host-cert.pub")).unwrap().to_bytes().unwrap();
    let at = forged.windows(15).position(|bytes| bytes == b"bad.example.com").unwrap();
    let forged = [&forged[..at], b"git.example.com", &forged[at + 15..]].concat();
    let forged = Certificate::from_bytes(&forged).unwrap();
    assert_eq!(file.vouched(host, &forged, now), Some(Err(BadCertificate::Signature)));
}
