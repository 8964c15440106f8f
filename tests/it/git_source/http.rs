//! Fetching over HTTP: who is told what.

use std::time::Duration;

use ostler::class::Class;
use ostler::git::{Credential, Error, Limits, Location, Remote};

use super::{NEVER, contains, contents, fetch, id, main_branch, mirror};
use crate::servers::closed::Closed;
use crate::servers::git_http::{Auth, Fault, GitHttp, Options};
use crate::servers::repo::Repo;

fn basic(password: &str) -> Credential {
    Credential::Basic { username: "ada".into(), password: password.into() }
}

fn location(server: &GitHttp) -> Location {
    server.url("origin.git").parse().unwrap()
}

#[test]
fn https_with_a_private_authority_and_a_password() {
    let repo = Repo::with_readme();
    let options =
        Options { tls: true, auth: Some(Auth::Basic("ada", "hunter2-canary")), ..Options::default() };
    let server = GitHttp::start(repo.root(), options);
    let with =
        |password| Remote::builder(location(&server)).credential(basic(password)).ca(server.ca()).build();
    let mirror = mirror(&repo);

    let fetched = fetch(&mirror, &with("hunter2-canary").unwrap()).unwrap();
    assert!(fetched.changed && fetched.received_bytes > 0);
    assert!(server.seen().iter().all(|request| request.authorization.is_some()), "asked once, not twice");
    assert!(!contains(&contents(mirror.path()), "canary"), "the mirror keeps no credential");

    let error = fetch(&mirror, &with("wrong-canary").unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { sent: true, .. }), "{error:?}");
    assert_eq!(error.class(), Class::Invalid);
    assert!(!format!("{error} {error:?}").contains("canary"));

    let nobody = Remote::builder(location(&server)).ca(server.ca()).build().unwrap();
    let error = fetch(&mirror, &nobody).unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { sent: false, .. }), "{error:?}");
}

#[test]
fn a_bearer_token_over_http_to_loopback() {
    let repo = Repo::with_readme();
    let server =
        GitHttp::start(repo.root(), Options { auth: Some(Auth::Bearer("token")), ..Options::default() });
    let remote =
        Remote::builder(location(&server)).credential(Credential::Bearer("token".into())).build().unwrap();
    assert!(fetch(&mirror(&repo), &remote).unwrap().changed);
}

#[test]
fn an_authority_that_is_not_ours_is_not_trusted() {
    let repo = Repo::with_readme();
    let tls = || Options { tls: true, ..Options::default() };
    let (server, other) = (GitHttp::start(repo.root(), tls()), GitHttp::start(repo.root(), tls()));
    for remote in [Remote::builder(location(&server)).ca(other.ca()), Remote::builder(location(&server))] {
        let error = fetch(&mirror(&repo), &remote.credential(basic("pw")).build().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    }
    assert!(server.seen().is_empty(), "no request before the server is known");
    let error = fetch(&mirror(&repo), &Remote::builder(location(&server)).ca("no PEM").build().unwrap());
    assert!(matches!(error, Err(Error::Settings { .. })), "{error:?}");
}

#[test]
fn nothing_new_asks_for_the_list_of_references_and_nothing_else() {
    let repo = Repo::with_readme();
    let server = GitHttp::start(repo.root(), Options::default());
    let remote = Remote::builder(location(&server)).build().unwrap();
    let mirror = mirror(&repo);
    fetch(&mirror, &remote).unwrap();
    server.seen();
    assert!(!fetch(&mirror, &remote).unwrap().changed);
    let seen = server.seen();
    let [hello, list] = seen.as_slice() else { panic!("two requests, not {seen:?}") };
    assert_eq!((hello.method.as_str(), list.method.as_str()), ("GET", "POST"));
    assert!(contains(&list.body, "command=ls-refs") && contains(&list.body, "ref-prefix refs/heads/main"));
}

#[test]
fn a_redirect_is_followed_without_the_credential() {
    let repo = Repo::with_readme();
    let target = GitHttp::start(repo.root(), Options::default());
    let guarded =
        GitHttp::start(repo.root(), Options { auth: Some(Auth::Basic("ada", "pw")), ..Options::default() });
    let server = GitHttp::start(repo.root(), Options::default());
    let remote = Remote::builder(location(&server)).credential(basic("pw")).build().unwrap();

    server.fault(Fault::RedirectTo(target.base()));
    assert!(fetch(&mirror(&repo), &remote).unwrap().changed);
    let seen = target.seen();
    assert!(seen.len() >= 2 && seen.iter().all(|request| request.authorization.is_none()), "{seen:?}");
    assert!(server.seen().iter().all(|request| request.authorization.is_some()));

    server.fault(Fault::RedirectTo(guarded.base()));
    let error = fetch(&mirror(&repo), &remote).unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { sent: false, redirected: true, .. }), "{error:?}");
    assert!(guarded.seen().iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_longer_name_of_the_same_repository_gets_the_credential() {
    let repo = Repo::with_readme();
    let guarded = Options { auth: Some(Auth::Basic("ada", "pw")), ..Options::default() };
    let server = GitHttp::start(repo.root(), guarded);
    server.fault(Fault::DotGit);
    let url = server.url("origin").parse().unwrap();
    let remote = Remote::builder(url).credential(basic("pw")).build().unwrap();
    assert!(fetch(&mirror(&repo), &remote).unwrap().changed);
    let seen = server.seen();
    assert!(seen.iter().any(|request| request.path.starts_with("/origin.git/git-upload-pack")), "{seen:?}");
}

#[test]
fn a_location_that_was_allowed_is_not_left() {
    let repo = Repo::with_readme();
    let elsewhere = GitHttp::start(repo.root(), Options::default());
    let server = GitHttp::start(repo.root(), Options::default());
    let at = |url: String| Remote::builder(url.parse().unwrap()).build().unwrap().staying();
    let remote = at(server.url("origin.git"));
    assert!(fetch(&mirror(&repo), &remote).unwrap().changed);

    // to another server, and to another repository of the same one
    for base in [elsewhere.base(), format!("{}/moved", server.base())] {
        server.fault(Fault::RedirectTo(base.clone()));
        server.seen();
        let error = fetch(&mirror(&repo), &remote).unwrap_err();
        assert!(matches!(error, Error::Moved { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Invalid);
        let said = error.to_string();
        assert!(
            said.contains(&server.url("origin.git")) && said.contains(&format!("{base}/origin.git")),
            "{said}"
        );
        assert_eq!((elsewhere.seen().len(), server.seen().len()), (0, 1), "nobody was asked there");
    }

    // the same by a longer name
    server.fault(Fault::DotGit);
    server.seen();
    fetch(&mirror(&repo), &at(server.url("origin"))).unwrap();
    assert!(server.seen().iter().any(|request| request.path.starts_with("/origin.git/git-upload-pack")));
}

#[test]
fn redirects_that_lead_nowhere_good_are_refused() {
    let repo = Repo::with_readme();
    let tls = GitHttp::start(repo.root(), Options { tls: true, ..Options::default() });
    let plain = GitHttp::start(repo.root(), Options::default());
    tls.fault(Fault::RedirectTo(plain.base()));
    let remote = Remote::builder(location(&tls)).ca(tls.ca()).build().unwrap();
    let error = fetch(&mirror(&repo), &remote).unwrap_err();
    assert!(matches!(error, Error::Refused { retry: false, .. }), "https stays https: {error:?}");
    assert!(plain.seen().is_empty());

    plain.fault(Fault::RedirectTo(plain.base()));
    let error = fetch(&mirror(&repo), &Remote::builder(location(&plain)).build().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "a circle ends: {error:?}");
}

#[test]
fn answers_of_a_server_have_their_class() {
    let repo = Repo::with_readme();
    let server = GitHttp::start(repo.root(), Options::default());
    let remote = Remote::builder(location(&server)).build().unwrap();
    let mirror = mirror(&repo);
    for (status, class) in [
        (500, Class::Transient),
        (503, Class::Transient),
        (429, Class::Transient),
        (403, Class::Invalid),
        (404, Class::Invalid),
        (418, Class::Invalid),
    ] {
        server.fault(Fault::Status(status));
        let error = fetch(&mirror, &remote).unwrap_err();
        assert_eq!(error.class(), class, "{status}: {error:?}");
    }
    server.fault(Fault::None);
    let nowhere = Remote::builder(server.url("nowhere.git").parse().unwrap()).build().unwrap();
    assert!(matches!(fetch(&mirror, &nowhere), Err(Error::NotFound { .. })));
    let closed = Closed::new();
    let unreachable = Remote::builder(format!("http://{}/a", closed.address()).parse().unwrap());
    assert!(matches!(fetch(&mirror, &unreachable.build().unwrap()), Err(Error::Unreachable { .. })));
}

#[test]
fn a_server_that_does_not_answer_costs_the_timeout_of_the_whole_operation() {
    let repo = Repo::with_readme();
    let server = GitHttp::start(repo.root(), Options::default());
    server.fault(Fault::Delay(Duration::from_hours(1)));
    let remote = Remote::builder(location(&server)).timeout(Duration::from_millis(300)).build().unwrap();
    let error = fetch(&mirror(&repo), &remote).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
}

#[test]
fn an_interrupt_ends_a_fetch_that_waits() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let repo = Repo::with_readme();
    let server = GitHttp::start(repo.root(), Options::default());
    server.fault(Fault::Delay(Duration::from_hours(1)));
    let remote = Remote::builder(location(&server)).timeout(Duration::from_hours(1)).build().unwrap();
    let interrupt = AtomicBool::new(false);
    let mirror = mirror(&repo);
    let error = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| mirror.fetch(&remote, &main_branch(), &Limits::default(), &interrupt));
        while server.seen().is_empty() {
            std::thread::yield_now();
        }
        interrupt.store(true, Ordering::Relaxed);
        fetching.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, Error::Interrupted), "{error:?}");
}

#[test]
fn a_connection_that_breaks_anywhere_leaves_a_mirror_that_goes_on() {
    let repo = Repo::with_readme();
    let tip = repo.push(&[("a.yaml", &"a: 1\n".repeat(50_000))], "more");
    let server = GitHttp::start(repo.root(), Options::default());
    let remote = Remote::builder(location(&server)).build().unwrap();
    let mirror = mirror(&repo);
    for bytes in [0, 1, 20, 80, 120, 200, 300, 400] {
        server.fault(Fault::CutAfter(bytes));
        let error = fetch(&mirror, &remote).unwrap_err();
        assert_eq!(error.class(), Class::Transient, "after {bytes}: {error:?}");
        assert_eq!(mirror.tip("refs/heads/main").unwrap(), None, "after {bytes}");
    }
    server.fault(Fault::None);
    assert_eq!(fetch(&mirror, &remote).unwrap().tips["refs/heads/main"].commit, id(&tip));
}

#[test]
fn a_proxy_gets_what_does_not_go_to_loopback() {
    let repo = Repo::with_readme();
    let proxy = GitHttp::start(repo.root(), Options::default());
    let build =
        |url: &str| Remote::builder(url.parse().unwrap()).proxy(&proxy.base()).unwrap().build().unwrap();
    // The proxy is a Git server that takes absolute-form requests for its own.
    assert!(fetch(&mirror(&repo), &build("http://git.example.com/origin.git")).unwrap().changed);
    let seen = proxy.seen();
    assert!(seen[0].path.starts_with("http://git.example.com/origin.git/info/refs"), "{seen:?}");
    let direct = GitHttp::start(repo.root(), Options::default());
    fetch(&mirror(&repo), &build(&direct.url("origin.git"))).unwrap();
    assert!(proxy.seen().is_empty() && !direct.seen().is_empty());
}

#[test]
fn new_and_moved_branches_come_together_also_from_old_servers() {
    for old in [false, true] {
        let repo = Repo::with_readme();
        let server = GitHttp::start(repo.root(), Options { old, ..Options::default() });
        let remote = Remote::builder(location(&server)).build().unwrap();
        let mirror = mirror(&repo);
        fetch(&mirror, &remote).unwrap();
        let moved = repo.push(&[("a", "1")], "second");
        repo.git(&["checkout", "--quiet", "-b", "feature"]);
        repo.push(&[("b", "1")], "third");
        let new = repo.push(&[("b", "2")], "fourth");
        let both = main_branch().branch("feature").unwrap();
        let fetched = mirror.fetch(&remote, &both, &Limits::default(), &NEVER).unwrap();
        assert_eq!(fetched.tips["refs/heads/main"].commit, id(&moved), "old: {old}");
        assert_eq!(fetched.tips["refs/heads/feature"].commit, id(&new), "old: {old}");
        assert!(!mirror.fetch(&remote, &both, &Limits::default(), &NEVER).unwrap().changed);
    }
}

#[test]
fn a_push_by_git_over_http_arrives_with_the_next_fetch() {
    let repo = Repo::with_readme();
    let server = GitHttp::start(repo.root(), Options { push: true, ..Options::default() });
    let remote = Remote::builder(location(&server)).build().unwrap();
    let mirror = mirror(&repo);
    fetch(&mirror, &remote).unwrap();
    let commit = repo.commit(&[("a", "1")], "second");
    repo.git(&["push", "--quiet", &server.url("origin.git"), "HEAD:main"]);
    assert_eq!(fetch(&mirror, &remote).unwrap().tips["refs/heads/main"].commit, id(&commit));
}
