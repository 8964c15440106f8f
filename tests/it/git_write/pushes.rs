use std::{os::unix::fs::PermissionsExt, path::Path, sync::atomic::AtomicBool};

use super::{Lab, commit, write};
use ostler::git::{
    CommitId, Location, Remote, Repository,
    push::{Error, Outcome, Push, Rejection, Report, Update},
};

pub(super) fn remote(path: &Path) -> Remote {
    let location: Location = path.to_str().unwrap().parse().unwrap();
    Remote::builder(location).build().unwrap()
}

fn send(from: &Path, to: &Remote, updates: Vec<Update>) -> Result<Report, Error> {
    Push::new(updates).unwrap().send(&Repository::open(from).unwrap(), to, &AtomicBool::new(false))
}

fn update(name: &str, old: Option<CommitId>, new: CommitId) -> Update {
    Update::new(name, old, new).unwrap()
}

/// A server's repository and our bare copy of it.
fn pair(lab: &Lab) -> (std::path::PathBuf, std::path::PathBuf, CommitId) {
    let (server, base) = lab.seeded("server", &[("a", "1\n"), ("d/b", "2\n")]);
    lab.git(lab.root.path(), &["clone", "-q", "--bare", server.to_str().unwrap(), "ours"]);
    (server, lab.path("ours"), base)
}

fn hook(repository: &Path, name: &str, script: &str) {
    let path = repository.join("hooks").join(name);
    write(&path, format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_new_branch_and_a_fast_forward() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let first = commit(&ours, Some(base), &[("runs/r/result.yaml", "a\n")], None);
    let report =
        send(&ours, &remote(&server), vec![update("refs/heads/ostler/results", None, first)]).unwrap();
    assert!(report.done(), "{report:?}");
    // A commit, three trees and a blob.
    assert_eq!(report.objects, 5);
    let second = commit(&ours, Some(first), &[("runs/r/result.yaml", "b\n")], None);
    let report =
        send(&ours, &remote(&server), vec![update("refs/heads/ostler/results", Some(first), second)])
            .unwrap();
    assert!(report.done(), "{report:?}");
    assert_eq!(lab.head(&server, "ostler/results"), second);
    lab.fsck(&server);
    // Once more: it is there already, and nothing is sent.
    let again = send(&ours, &remote(&server), vec![update("refs/heads/ostler/results", Some(first), second)])
        .unwrap();
    assert!(again.done() && again.objects == 0, "{again:?}");
}

#[test]
fn somebody_else_was_first() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let theirs = commit(&server, Some(base), &[("x", "theirs\n")], None);
    lab.git(&server, &["update-ref", "refs/heads/main", &theirs.to_string()]);
    let mine = commit(&ours, Some(base), &[("x", "mine\n")], None);
    let report = send(&ours, &remote(&server), vec![update("refs/heads/main", Some(base), mine)]).unwrap();
    assert!(report.stale(), "{report:?}");
    assert!(send(&ours, &remote(&server), vec![update("refs/heads/main", None, mine)]).unwrap().stale());
    assert_eq!(lab.head(&server, "main"), theirs);
}

/// The reference moves between the server's advertisement and its update: the server itself must refuse.
#[test]
fn a_race_on_the_server_is_stale_too() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let theirs = commit(&server, Some(base), &[("x", "theirs\n")], None);
    hook(
        &server,
        "pre-receive",
        &format!("unset GIT_QUARANTINE_PATH; git update-ref refs/heads/main {theirs}"),
    );
    let mine = commit(&ours, Some(base), &[("x", "mine\n")], None);
    let report = send(&ours, &remote(&server), vec![update("refs/heads/main", Some(base), mine)]).unwrap();
    assert!(report.stale(), "{report:?}");
    assert_eq!(lab.head(&server, "main"), theirs);
}

#[test]
fn a_hook_that_declines_is_quoted_safely() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    hook(&server, "pre-receive", "printf '\\033[31mno pushes on Friday\\033[0m\\n' >&2; exit 1");
    let mine = commit(&ours, Some(base), &[("x", "mine\n")], None);
    let report = send(&ours, &remote(&server), vec![update("refs/heads/main", Some(base), mine)]).unwrap();
    let expected = Rejection::Declined { text: "no pushes on Friday".into() };
    assert_eq!(report.refs, [("refs/heads/main".to_owned(), Outcome::Rejected(expected))]);
    assert_eq!(lab.head(&server, "main"), base);
}

#[test]
fn two_references_move_together_or_not_at_all() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let mine = commit(&ours, Some(base), &[("x", "mine\n")], None);
    let bulk = commit(&ours, None, &[("log", "long\n")], None);
    let both = |old| {
        vec![update("refs/heads/main", Some(old), mine), update("refs/ostler/runs/default/r", None, bulk)]
    };
    hook(&server, "update", "test \"$1\" != refs/ostler/runs/default/r");
    let report = send(&ours, &remote(&server), both(base)).unwrap();
    assert!(report.refs.iter().all(|(_, outcome)| matches!(outcome, Outcome::Rejected(_))), "{report:?}");
    assert_eq!(lab.head(&server, "main"), base);
    std::fs::remove_file(server.join("hooks/update")).unwrap();
    assert!(send(&ours, &remote(&server), both(base)).unwrap().done());
    assert_eq!(lab.head(&server, "refs/ostler/runs/default/r"), bulk);

    // One of them stale: the other is not moved either.
    let next = commit(&ours, Some(mine), &[("x", "next\n")], None);
    let updates =
        vec![update("refs/heads/main", Some(mine), next), update("refs/heads/other", Some(base), next)];
    let report = send(&ours, &remote(&server), updates).unwrap();
    let outcomes: Vec<_> = report.refs.iter().map(|(_, outcome)| outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Rejected(Rejection::Aborted), Outcome::Rejected(Rejection::Stale)]);
    assert_eq!(lab.head(&server, "main"), mine);
}

#[test]
fn history_is_never_rewritten_but_bulk_is() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let other = commit(&ours, None, &[("x", "unrelated\n")], None);
    let report = send(&ours, &remote(&server), vec![update("refs/heads/main", Some(base), other)]).unwrap();
    assert_eq!(report.refs[0].1, Outcome::Rejected(Rejection::NotFastForward));
    let bulk = "refs/ostler/runs/default/r";
    assert!(send(&ours, &remote(&server), vec![update(bulk, None, other)]).unwrap().done());
    let again = commit(&ours, None, &[("x", "again\n")], None);
    assert!(send(&ours, &remote(&server), vec![update(bulk, Some(other), again)]).unwrap().done());
    assert_eq!(lab.head(&server, bulk), again);
}

#[test]
fn a_shallow_mirror_can_push_even_when_the_branch_moved_on() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    let second = commit(&ours, Some(base), &[("a", "2\n")], None);
    assert!(
        send(&ours, &remote(&server), vec![update("refs/heads/main", Some(base), second)]).unwrap().done()
    );
    let url = format!("file://{}", server.display());
    lab.git(lab.root.path(), &["clone", "-q", "--bare", "--depth", "1", &url, "shallow"]);
    let shallow = lab.path("shallow");
    let third = commit(&shallow, Some(second), &[("a", "3\n")], None);
    // Meanwhile the server's branch moves on, so that it advertises none of our commits.
    let moved = commit(&server, Some(second), &[("b", "9\n")], None);
    lab.git(&server, &["update-ref", "refs/heads/main", &moved.to_string()]);
    let push = Push::new(vec![update("refs/heads/ostler/default/r", None, third)]).unwrap();
    let repository = Repository::open(&shallow).unwrap();
    let blind = push.clone().send(&repository, &remote(&server), &AtomicBool::new(false));
    assert!(matches!(blind, Err(Error::Pack(ostler::git::pack::Error::ShallowBoundary { .. }))), "{blind:?}");
    let report = push.known([second]).send(&repository, &remote(&server), &AtomicBool::new(false)).unwrap();
    assert!(report.done() && report.objects == 3, "{report:?}");
    lab.fsck(&server);
}

#[test]
fn one_byte_in_a_thousand_files_sends_few_objects() {
    let lab = Lab::new();
    let files: Vec<(String, String)> =
        (0..1_000).map(|n| (format!("d{}/e{}/f{n}", n % 10, n % 7), format!("{n}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let (server, base) = lab.seeded("server", &files);
    lab.git(lab.root.path(), &["clone", "-q", "--bare", server.to_str().unwrap(), "ours"]);
    let mine = commit(&lab.path("ours"), Some(base), &[("d3/e3/f3", "x\n")], None);
    let report =
        send(&lab.path("ours"), &remote(&server), vec![update("refs/heads/main", Some(base), mine)]).unwrap();
    assert!(report.done());
    // The commit, three trees, the blob.
    assert_eq!(report.objects, 5);
    lab.fsck(&server);
}

#[test]
fn a_checkout_takes_pushes_to_other_branches_only() {
    let lab = Lab::new();
    let (_, ours, base) = pair(&lab);
    let work = lab.path("server-work");
    let mine = commit(&ours, Some(base), &[("x", "mine\n")], None);
    let report = send(&ours, &remote(&work), vec![update("refs/heads/ostler/results", None, mine)]).unwrap();
    assert!(report.done(), "{report:?}");
    assert_eq!(lab.git(&work, &["status", "--porcelain"]), "");
    let report = send(&ours, &remote(&work), vec![update("refs/heads/main", Some(base), mine)]).unwrap();
    assert!(
        matches!(&report.refs[0].1, Outcome::Rejected(Rejection::Other { reason }) if reason.contains("checked out")),
        "{report:?}"
    );
}

#[test]
fn names_and_numbers_of_updates_are_checked_first() {
    let id: CommitId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    let null: CommitId = "0".repeat(40).parse().unwrap();
    for bad in
        ["main", "refs/heads/..", "refs/heads/a b", "refs/heads/a\nrefs/heads/b", "refs/heads/a\0b", ""]
    {
        assert!(matches!(Update::new(bad, None, id), Err(Error::Name(_))), "{bad:?}");
    }
    assert!(Update::new("refs/heads/a", Some(id), null).is_err(), "a deletion");
    assert!(Push::new(vec![]).is_err());
    assert!(Push::new(vec![update("refs/heads/a", None, id), update("refs/heads/a", None, id)]).is_err());
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let lab = Lab::new();
    let (server, ours, base) = pair(&lab);
    hook(&server, "pre-receive", "exec sleep 60");
    let mine = commit(&ours, Some(base), &[("x", "mine\n")], None);
    let location: Location = server.to_str().unwrap().parse().unwrap();
    let mut time = std::time::Duration::from_millis(400);
    loop {
        let hasty = Remote::builder(location.clone()).timeout(time).build().unwrap();
        let given_up = send(&ours, &hasty, vec![update("refs/heads/main", Some(base), mine)]).unwrap_err();
        let timeout = |error: &ostler::git::Error| matches!(error, ostler::git::Error::Timeout { .. });
        match &given_up {
            Error::Unknown(error) if timeout(error) => break,
            // A slow machine may not come so far that the server was asked for anything.
            Error::Remote(error) if timeout(error) && time.as_secs() < 20 => time *= 4,
            other => panic!("{other:?}"),
        }
    }
}
