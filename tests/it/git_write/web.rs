//! Pushes and checkouts over HTTP and HTTPS, against `git http-backend`.

use std::{num::NonZeroU32, path::PathBuf, sync::atomic::AtomicBool};

use super::{Lab, commit};
use crate::servers::git_http::{Auth, Fault, GitHttp, Options};
use ostler::git::{
    CommitId, Credential, Error as GitError, Limits, Location, Remote, Repository,
    push::{Error, Push, Report, Update},
    worktree::{Checkout, Revision},
};

fn basic(password: &str) -> Credential {
    Credential::Basic { username: "bot".into(), password: password.into() }
}

fn remote(server: &GitHttp, credential: Credential, tls: bool) -> Remote {
    let location: Location = server.url("server").parse().unwrap();
    let builder = Remote::builder(location).credential(credential);
    let builder = if tls { builder.ca(server.ca()) } else { builder };
    builder.build().unwrap()
}

fn pair(lab: &Lab) -> (PathBuf, PathBuf, CommitId) {
    let (server, base) = lab.seeded("server", &[("a", "1\n")]);
    lab.git(lab.root.path(), &["clone", "-q", "--bare", server.to_str().unwrap(), "ours"]);
    (server, lab.path("ours"), base)
}

fn send(from: &std::path::Path, to: &Remote, old: Option<CommitId>, new: CommitId) -> Result<Report, Error> {
    let push = Push::new(vec![Update::new("refs/heads/main", old, new).unwrap()]).unwrap();
    push.send(&Repository::open(from).unwrap(), to, &AtomicBool::new(false))
}

fn start(lab: &Lab, tls: bool, auth: Option<Auth>) -> GitHttp {
    GitHttp::start(lab.root.path(), Options { tls, auth, push: true, ..Options::default() })
}

fn unauthenticated(error: &Error, with: bool) -> bool {
    matches!(error, Error::Remote(error) if matches!(**error, GitError::Unauthenticated { sent, .. } if sent == with))
}

#[test]
fn each_way_in_takes_a_push() {
    let lab = Lab::new();
    let (server, ours, mut base) = pair(&lab);
    let ways = [
        (false, None, Credential::None),
        (false, Some(Auth::Basic("bot", "s3cret")), basic("s3cret")),
        (true, Some(Auth::Basic("bot", "s3cret")), basic("s3cret")),
        (true, Some(Auth::Bearer("t0ken")), Credential::Bearer("t0ken".into())),
    ];
    for (number, (tls, auth, credential)) in ways.into_iter().enumerate() {
        let web = start(&lab, tls, auth);
        // Longer than one request body in memory.
        let content = format!("{number}{}", "0123456789abcdef".repeat(1 << 10));
        let next = commit(&ours, Some(base), &[("a", &content)], None);
        let report = send(&ours, &remote(&web, credential, tls), Some(base), next).unwrap();
        assert!(report.done(), "{report:?}");
        assert_eq!(lab.head(&server, "main"), next);
        let stale = commit(&ours, Some(base), &[("a", "stale\n")], None);
        let report = send(&ours, &remote(&web, Credential::None, tls), Some(base), stale);
        assert!(number > 0 || report.unwrap().stale());
        base = next;
    }
    lab.fsck(&server);
}

#[test]
fn a_wrong_password_is_an_answer_that_holds_no_secret() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let web = start(&lab, true, Some(Auth::Basic("bot", "s3cret")));
    let next = commit(&ours, Some(base), &[("a", "2\n")], None);
    let refused = send(&ours, &remote(&web, basic("wr0ng"), true), Some(base), next).unwrap_err();
    assert!(unauthenticated(&refused, true), "{refused:?}");
    assert!(!format!("{refused:?} {refused}").contains("wr0ng"));
    let refused = send(&ours, &remote(&web, Credential::None, true), Some(base), next).unwrap_err();
    assert!(unauthenticated(&refused, false), "{refused:?}");
    assert_eq!(lab.head(&server, "main"), base);
}

#[test]
fn a_cut_connection_leaves_the_outcome_unknown() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let web = start(&lab, false, None);
    let mut at = base;
    for bytes in [0, 1, 10, 30] {
        web.fault(Fault::CutAfter(bytes));
        let next = commit(&ours, Some(at), &[("a", &format!("{bytes}\n"))], None);
        let cut = send(&ours, &remote(&web, Credential::None, false), Some(at), next);
        assert!(matches!(cut, Err(Error::Unknown(_))), "{bytes}: {cut:?}");
        // Asked again, the answer is true, whichever way it went.
        web.fault(Fault::None);
        let again = || send(&ours, &remote(&web, Credential::None, false), Some(at), next).unwrap();
        // The server may still be busy with the first one: it is stale then, once, by our own doing.
        let report = Some(again()).filter(Report::done).unwrap_or_else(again);
        assert!(report.done(), "{report:?}");
        assert_eq!(lab.head(&server, "main"), next);
        at = next;
    }
    lab.fsck(&server);
}

#[test]
fn a_server_in_trouble_is_worth_another_try() {
    let lab = Lab::new();
    let (_, ours, base) = pair(&lab);
    let web = start(&lab, false, None);
    web.fault(Fault::Status(503));
    let next = commit(&ours, Some(base), &[("a", "2\n")], None);
    match send(&ours, &remote(&web, Credential::None, false), Some(base), next) {
        Err(Error::Remote(error)) => assert_eq!(error.class(), ostler::class::Class::Transient),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_checkout_keeps_no_credential() {
    let lab = Lab::new();
    let (_, _, base) = pair(&lab);
    let web = start(&lab, true, Some(Auth::Basic("bot", "s3cret")));
    let remote = remote(&web, basic("s3cret"), true);
    let checkout = Checkout {
        remote: &remote,
        origin: None,
        revision: Revision::Branch("main".into()),
        branch: "main".into(),
        depth: NonZeroU32::new(1),
        limits: Limits::default(),
    };
    let work = lab.path("w");
    assert_eq!(checkout.run(&work, &AtomicBool::new(false)).unwrap().commit, base);
    assert_eq!(lab.git(&work, &["status", "--porcelain", "--branch"]), "## main...origin/main");
    assert_eq!(lab.git(&work, &["remote", "get-url", "origin"]), web.url("server"));
    let planted = lab
        .command("grep", &work)
        .args(["-r", "-e", "s3cret", "-e", "Ym90OnMzY3JldA", "."])
        .output()
        .unwrap();
    assert_eq!(planted.status.code(), Some(1), "{planted:?}");
}
