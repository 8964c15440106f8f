//! Outputs in a ledger that a password guards.

use std::{os::unix::fs::PermissionsExt, path::Path};

use ostler::{
    kinds::{Kind, meta},
    ports::Objects,
};
use serde_json::json;

use super::{Up, object, task};
use crate::servers::{
    git_http::{Auth, GitHttp, Options},
    repo::Repo,
};

/// Of nobody, and found nowhere but in what the server was sent.
const PASSWORD: &str = "s3cret-of-ada";

/// A repository with the output of the run `fix`, which a password guards.
fn guarded() -> (Repo, GitHttp) {
    let repo = Repo::with_readme();
    repo.git(&["checkout", "--quiet", "--orphan", "bulk"]);
    repo.git(&["rm", "--quiet", "-r", "-f", "."]);
    repo.commit(&[("output.log", "in the ledger\n")], "bulk");
    repo.git(&["push", "--quiet", "origin", "HEAD:refs/ostler/runs/default/fix"]);
    let auth = Some(Auth::Basic("ada", PASSWORD));
    let web = GitHttp::start(repo.root(), Options { auth, ..Options::default() });
    (repo, web)
}

/// A run that has ended, whose ledger is at a URL.
async fn ended(up: &Up, url: &str) {
    let config = json!({"url": url, "secretRef": {"name": "git"}});
    up.store.create(&object(Kind::ConfigRepository, "config", &config, &json!({})), meta::CLI).await.unwrap();
    let run =
        up.store.create(&object(Kind::HarnessRun, "fix", &task(), &json!({})), meta::CLI).await.unwrap();
    up.status(&run, Kind::HarnessRun, &json!({"phase": "Succeeded"})).await;
}

fn write_secret(folder: &Path, hosts: &str, password: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": "default", "name": "git",
            "annotations": {"ostler.dev/use": "git", "ostler.dev/hosts": hosts}},
        "stringData": {"username": "ada", "password": password}
    });
    let file = folder.join("git.yaml");
    std::fs::write(&file, secret.to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn the_secret_of_the_up_is_used() {
    let ((_repo, web), up) = (guarded(), Up::start());
    ended(&up, &web.url("origin.git")).await;
    let (host, state) = (web.address().to_string(), up.folder.path().join("state"));
    write_secret(&state.join("secrets"), &host, PASSWORD);
    assert_eq!(up.ok(&["logs", "fix"]).await, "in the ledger\n");
    let seen = web.seen();
    assert!(seen.iter().any(|one| one.authorization.is_some()), "it was asked for a password");
    assert!(seen.iter().all(|one| !one.path.contains(PASSWORD)));

    // with `ostler up --secrets`, the folder is another
    std::fs::remove_dir_all(state.join("secrets")).unwrap();
    assert!(up.verb(&["logs", "fix"]).await.0.is_err());
    let elsewhere = up.folder.path().join("elsewhere");
    write_secret(&elsewhere, &host, PASSWORD);
    std::os::unix::fs::symlink(&elsewhere, state.join("secrets.named")).unwrap();
    assert_eq!(up.ok(&["logs", "fix"]).await, "in the ledger\n");
}

#[tokio::test]
async fn a_reader_brings_a_secret_of_their_own_or_is_told_what_to_do() {
    let ((_repo, web), up) = (guarded(), Up::start());
    ended(&up, &web.url("origin.git")).await;
    std::fs::create_dir(up.folder.path().join("state/secrets")).unwrap();
    let refused = up.refused(&["logs", "fix"]).await;
    for part in [
        "Secret default/git does not exist",
        "--secrets",
        "git fetch http://",
        "refs/ostler/runs/default/fix",
    ] {
        assert!(refused.contains(part), "{part} is not in: {refused}");
    }

    let mine = up.folder.path().join("mine");
    let words = ["logs", "fix", "--secrets", mine.to_str().unwrap()];
    write_secret(&mine, &web.address().to_string(), PASSWORD);
    assert_eq!(up.ok(&words).await, "in the ledger\n");

    // a Secret goes to the hosts that it names, and to no other, whatever the ConfigRepository says
    write_secret(&mine, "git.example.com", PASSWORD);
    web.seen();
    let refused = up.refused(&words).await;
    assert!(refused.contains("may not be used") && !refused.contains(PASSWORD), "{refused}");
    assert!(web.seen().iter().all(|one| one.authorization.is_none()));

    let wrong = "not-the-password";
    write_secret(&mine, &web.address().to_string(), wrong);
    let refused = up.refused(&words).await;
    assert!(refused.contains("git fetch") && !refused.contains(wrong), "{refused}");
}

#[test]
fn who_verifies_a_private_ledger_is_told_how() {
    let (repo, web) = guarded();
    let (url, signers) = (web.url("origin.git"), repo.root().join("signers"));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    std::fs::write(&signers, format!("ostler namespaces=\"git\" {key}\n")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ostler"));
    let done = command.args(["verify", "results", &url, "--signers"]).arg(signers).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("git clone --mirror {url}")), "{said}");
}
