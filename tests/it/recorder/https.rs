//! The recorder over HTTPS: a password from a folder of Secrets, a certificate of a private authority.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use ostler::{
    embedded::secrets::SecretFolder,
    kinds::condition,
    ledger::{self, File, ResultEntry},
    report::{BUNDLE, OUTPUT, Receipt},
};
use serde_json::json;

use super::{
    results::{changes, running_status, work},
    stage::{Stage, is_claimed, path},
};
use crate::servers::{
    git_http::{Auth, GitHttp, Options},
    repo::Repo,
};

/// A stage whose repository is reached by HTTPS only, with one Secret for `hosts`.
async fn behind_https(password: &str, hosts: impl Fn(&GitHttp) -> String) -> (Stage, GitHttp) {
    let mut stage = Stage::beside(Repo::with_readme(), "holder-1");
    let auth = Some(Auth::Basic("bot", "s3cret"));
    let web =
        GitHttp::start(stage.repo.root(), Options { tls: true, auth, push: true, ..Options::default() });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": "team", "name": "push",
            "annotations": {"ostler.dev/use": "git", "ostler.dev/hosts": hosts(&web)}},
        "stringData": {"username": "bot", "password": password, "ca.crt": web.ca()}
    });
    let folder = stage.folder.path().join("secrets");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("push.yaml");
    std::fs::write(&file, secret.to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    stage.secrets = Arc::new(SecretFolder::open(&folder).unwrap());
    let spec = json!({"url": web.url("origin.git"), "interval": "1h", "secretRef": {"name": "push"}});
    stage.repository_of(&spec).await;
    (stage, web)
}

#[tokio::test]
async fn ledger_bulk_and_code_branch_are_pushed_with_a_password() {
    let (stage, web) = behind_https("s3cret", |web| web.address().to_string()).await;
    let (base, head, bundle) = work(&stage, "src/a.txt");
    let running = stage.start();
    stage.claiming("other").await;
    let repository = json!({"url": web.url("origin.git"), "secretRef": {"name": "push"}});
    let spec = json!({"command": ["true"], "repository": repository, "result": {"push": {}}});
    let run = stage.run("fix", &spec, &running_status()).await;
    let files = [(BUNDLE, bundle), (OUTPUT, b"hello\n".to_vec())];
    let delivery = stage.delivery(&run, &changes(&base, &head), &files);
    assert_eq!(running.handle.deliver(delivery).await, Receipt::Recorded);
    let entry = ResultEntry::from_yaml(&stage.show(&path("fix", File::Result))).unwrap();
    assert!(entry.push.pushed, "{:?}", entry.push);
    assert_eq!(stage.repo.bare_git(&["rev-parse", "ostler/team/fix"]), head);
    assert_eq!(stage.repo.bare_git(&["show", "refs/ostler/runs/team/fix:output.log"]), "hello");
    let seen = web.seen();
    assert!(seen.iter().any(|seen| seen.path.contains("git-receive-pack") && seen.method == "POST"));
    // The password travels in its header and nowhere else.
    for seen in &seen {
        assert!(!seen.path.contains("s3cret"), "{}", seen.path);
        assert!(!seen.body.windows(6).any(|part| part == b"s3cret"));
    }
    running.stop().await;
    let tree = std::process::Command::new("grep")
        .args(["-rl", "s3cret"])
        .arg(stage.folder.path().join("recorder"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&tree.stdout), "", "nor is it in a mirror");
}

async fn refused(stage: &Stage, words: &str) {
    let running = stage.start();
    stage.asking("fix").await;
    let state = stage.ledger(&running, |state| matches!(state, ledger::State::Unavailable(_))).await;
    let ledger::State::Unavailable(text) = state else { panic!("{state:?}") };
    assert!(text.contains(words) && !text.contains("wr0ng") && !text.contains("s3cret"), "{text}");
    assert!(!is_claimed(&stage.get("fix").await), "no claim without a ledger");
    let said = stage.config().await.status.unwrap_or_default().conditions;
    let ready = condition::get(&said, condition::types::LEDGER_READY);
    assert!(ready.is_none_or(|ready| ready.status == "False"), "{ready:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_wrong_password_leaves_the_ledger_away_and_is_not_repeated_in_words() {
    let (stage, _web) = behind_https("wr0ng", |web| web.address().to_string()).await;
    refused(&stage, "credential").await;
}

#[tokio::test]
async fn a_password_for_another_host_is_not_sent() {
    let (stage, web) = behind_https("s3cret", |_| "git.example.com".to_owned()).await;
    refused(&stage, "ostler.dev/hosts").await;
    assert!(web.seen().is_empty(), "nobody was asked");
}
