//! The whole way: push, claim, start, result, code branch.

use ostler::kinds::{Phase, Reason};
use serde_json::json;

use super::{
    ledger::BRANCH,
    manifests::{commits, secret, session_with, shell},
    world::World,
};
use crate::servers::{
    git_http::{Auth, Fault, GitHttp, Options},
    repo::{Repo, git},
};

/// The first byte of the SHA-256 of `hello` is 2c.
const FOLDER: &str = "runs/default/2c/hello";

/// Follows the run `hello` of a world from its push to its end, and again.
pub(super) fn goes_the_whole_way(world: &World, pushed: &str) {
    let followed = git(&world.ledger, &["rev-parse", "main"]);
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert!(ended.text.contains("idle: 1 succeeded, 0 did not, 0 wait"), "{}", ended.text);

    let ledger = world.ledger();
    let (claim, result) = (ledger.claim("hello").unwrap(), ledger.result("hello").unwrap());
    assert_eq!(result["outcome"], "Succeeded");
    assert_eq!((&result["reason"], &result["exitCode"]), (&json!("Completed"), &json!(0)));
    assert_eq!(result["push"]["branch"], "ostler/default/hello");
    assert_eq!(result["push"]["pushed"], true);
    for field in ["run", "uid", "holder", "digest", "configCommit"] {
        assert_eq!(claim[field], result[field], "{field}");
    }
    assert_eq!(claim["configCommit"], pushed);
    ledger.assert_signed();
    let (claims, results) = (
        ledger.commits_of(&format!("{FOLDER}/claim.yaml")),
        ledger.commits_of(&format!("{FOLDER}/result.yaml")),
    );
    assert_eq!((claims.len(), results.len()), (1, 1), "each entry is written once");
    for commit in [&claims[0], &results[0]] {
        assert_eq!(commit.trailer("Ostler-Run"), ["default/hello"], "{}", commit.subject);
        assert_eq!(commit.trailer("Ostler-Run-UID"), [claim["uid"].as_str().unwrap()]);
        assert_eq!(commit.trailer("Ostler-Digest"), [claim["digest"].as_str().unwrap()]);
        assert_eq!(commit.trailer("Ostler-Config-Commit"), [pushed]);
    }
    git(&world.ledger, &["merge-base", "--is-ancestor", &claims[0].id, &results[0].id]);

    assert_eq!(world.code_file("hello", "WORK"), "done");
    assert_eq!(world.code_file("hello", "STARTS").lines().count(), 1, "it started once");
    assert_eq!(world.code_branches(), ["main", "ostler/default/hello"]);
    let head = world.code.bare_git(&["rev-parse", "ostler/default/hello"]);
    assert_eq!(result["changes"]["head"], head);

    assert_eq!(git(&world.ledger, &["rev-parse", "main"]), followed, "what is followed is not written");
    let references = git(&world.ledger, &["for-each-ref", "--format=%(refname)"]);
    let ours = ["refs/heads/main", &format!("refs/heads/{BRANCH}"), "refs/ostler/runs/default/hello"];
    assert_eq!(
        references.lines().filter(|name| !name.starts_with("refs/remotes/")).collect::<Vec<_>>(),
        ours
    );
    for repository in [&world.ledger, &world.code.bare()] {
        git(repository, &["fsck", "--strict", "--no-dangling"]);
    }

    let tip = ledger.tip();
    let again = world.up_until_idle(&[]);
    assert_eq!(again.code, Some(0), "{}", again.text);
    assert_eq!(ledger.tip(), tip, "the second time there is nothing to write");
    assert_eq!(world.code_file("hello", "STARTS").lines().count(), 1);
}

#[test]
fn a_push_to_a_bare_repository_becomes_a_signed_result_and_a_code_branch() {
    let world = World::new();
    let pushed = world.push_run("hello", &commits("WORK", "done"));
    goes_the_whole_way(&world, &pushed);
}

#[test]
fn a_commit_in_a_checkout_does_too_and_its_work_tree_stays_as_it_is() {
    let mut world = World::new();
    world.target = vec![world.config.work().into()];
    world.ledger = world.config.work();
    let pushed = world.push_run("hello", &commits("WORK", "done"));
    world.config.write("draft.yaml", "not: committed\n");
    let index = std::fs::read(world.config.work().join(".git/index")).unwrap();
    goes_the_whole_way(&world, &pushed);
    assert_eq!(world.config.git(&["status", "--porcelain"]), "?? draft.yaml");
    assert_eq!(world.config.git(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(std::fs::read(world.config.work().join(".git/index")).unwrap(), index);
}

/// Two repositories behind web servers with a certificate of a private authority each, and a credential for each.
pub(super) struct Web {
    pub(super) config: GitHttp,
    pub(super) code: GitHttp,
    pub(super) world: World,
}

/// The passwords of the two.
pub(super) const PASSWORDS: [&str; 2] = ["Canary7KxConfig", "Canary7KxCode"];

/// A world whose repositories are on the web, with the Secrets that open them.
pub(super) fn on_the_web() -> Web {
    let (config, code) = (Repo::new(), Repo::with_readme());
    let serve = |repo: &Repo, password| {
        let auth = Some(Auth::Basic("ostler", password));
        GitHttp::start(repo.root(), Options { tls: true, auth, push: true, old: false })
    };
    let (config_web, code_web) = (serve(&config, PASSWORDS[0]), serve(&code, PASSWORDS[1]));
    let mut world = World::of(config, code);
    for (name, server, password) in [("config", &config_web, PASSWORDS[0]), ("code", &code_web, PASSWORDS[1])]
    {
        let data = json!({"username": "ostler", "password": password, "ca.crt": server.ca()});
        let host = server.address().to_string();
        world.write(&format!("secrets/{name}.yaml"), &secret(name, "git", Some(&host), &data));
    }
    let repository = json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository", "metadata": {"name": "agents"},
        "spec": {"url": config_web.url("origin.git"), "interval": "1s", "secretRef": {"name": "config"}},
    });
    let file = world.write("repository.yaml", &repository.to_string());
    world.target = vec!["--config".into(), file.into(), "--secrets".into(), world.path("secrets").into()];
    let session =
        session_with(&code_web.url("origin.git"), &json!({"repository": {"secretRef": {"name": "code"}}}));
    world.push(&[("agents/shell.yaml", &shell()), ("session.yaml", &session)], "an agent and a session");
    Web { config: config_web, code: code_web, world }
}

#[test]
fn a_push_over_https_with_a_password_and_a_private_authority_does_too() {
    let web = on_the_web();
    let pushed = web.world.push_run("hello", &format!("echo said\n{}", commits("WORK", "done")));
    goes_the_whole_way(&web.world, &pushed);
    for (server, password) in [(&web.config, PASSWORDS[0]), (&web.code, PASSWORDS[1])] {
        let seen = server.seen();
        assert!(seen.iter().any(|request| request.path.contains("git-receive-pack")), "it was pushed there");
        assert!(seen.iter().all(|request| !request.path.contains(password)));
    }

    // its place is gone, and the ledger is behind the password
    let logs = web.world.logs("hello");
    let (said, error) = (String::from_utf8_lossy(&logs.stdout), String::from_utf8_lossy(&logs.stderr));
    assert!(said.contains("said\n"), "{said}{error}");
}

#[test]
fn a_code_repository_that_is_elsewhere_now_is_not_followed_there() {
    let web = on_the_web();
    let elsewhere = GitHttp::start(web.world.code.root(), Options { tls: true, ..Options::default() });
    web.code.fault(Fault::RedirectTo(elsewhere.base()));
    web.world.push_run("hello", &commits("WORK", "done"));
    let up = web.world.up();
    let run = web.world.wait_run("hello", "it fails", |status| {
        (status.phase, status.reason) == (Some(Phase::Failed), Some(Reason::CloneFailed))
    });
    let message = run.status.unwrap().message.unwrap();
    for url in [web.code.url("origin.git"), elsewhere.url("origin.git")] {
        assert!(message.contains(&url), "{url} is not named: {message}");
    }
    assert!(elsewhere.seen().is_empty(), "nobody was asked there");
    drop(up);
}
