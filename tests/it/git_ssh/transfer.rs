//! Fetches and pushes.

use std::num::NonZeroU32;

use ostler::{
    class::Class,
    git::{
        Ancestry, CommitId, Error, Limits, Movement, Repository,
        commit::{Change, Draft, Identity, Message, Outcome},
        push::{Push, Report, Update},
        worktree::{Checkout, Revision},
    },
};

use super::{MAIN, NEVER, fetch, identity, main_branch, mirror, noise, remote, told};
use crate::servers::{
    repo::{Repo, git},
    ssh::{Options, Ssh},
};

fn id(text: &str) -> CommitId {
    text.parse().unwrap()
}

#[test]
fn the_first_fetch_is_shallow_and_later_ones_are_incremental_in_both_versions_of_the_protocol() {
    for version_2 in [true, false] {
        let server = Ssh::start(&Options { version_2, ..Options::default() });
        let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
        let repo = Repo::with_readme();
        let second = repo.push(&[("a.yaml", "a: 1\n")], "second");
        let (mirror, remote) = (mirror(&repo), remote(&server, &repo, identity));

        let first = fetch(&mirror, &remote).unwrap();
        assert_eq!(
            (first.tips[MAIN].commit, first.objects),
            (id(&second), 4),
            "no history; version 2: {version_2}"
        );
        let third = repo.push(&[("b.yaml", "b: 1\n")], "third");
        let later = fetch(&mirror, &remote).unwrap();
        let movement = Movement::Moved { from: id(&second), ancestry: Ancestry::FastForward };
        assert_eq!((later.tips[MAIN].movement, later.objects), (movement, 3));
        assert_eq!(mirror.tip(MAIN).unwrap(), Some(id(&third)));
        assert!(!fetch(&mirror, &remote).unwrap().changed);
        let deep = main_branch().depth(NonZeroU32::new(2));
        mirror.fetch(&remote, &deep, &Limits::default(), &NEVER).unwrap();
        git(mirror.path(), &["fsck", "--full", "--strict"]);
    }
}

#[test]
fn a_path_with_signs_of_the_shell_is_a_path() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let strange = repo.root().join("it's; $(touch x) `y` !z & \"w\" 100%.git");
    std::fs::rename(repo.bare(), &strange).unwrap();
    let url = server.url(&strange).replace('%', "%25").replace(' ', "%20");
    let remote = ostler::git::Remote::builder(url.parse().unwrap()).credential(identity).build().unwrap();
    assert!(fetch(&mirror(&repo), &remote).unwrap().changed);
}

fn commit(repo: &Repo, parent: &str, content: &str) -> CommitId {
    let person = Identity::new("ostler", "ostler@example.com").unwrap();
    let draft = Draft {
        parent: Some(id(parent)),
        changes: vec![Change::Write { path: "a".into(), content: content.into() }],
        author: person.clone(),
        committer: person,
        time: "2026-02-03T04:05:06Z".parse().unwrap(),
        message: Message::new("a change", "", &[]).unwrap(),
    };
    match draft.write(&Repository::open(&repo.work()).unwrap(), None).unwrap() {
        Outcome::Written(id) => id,
        Outcome::Unchanged => panic!("it is another content"),
    }
}

#[test]
fn a_push_replaces_what_it_expects_and_nothing_else() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let remote = remote(&server, &repo, identity);
    let base = repo.git(&["rev-parse", "HEAD"]);
    let send = |old: &str, new: CommitId| -> Report {
        let push = Push::new(vec![Update::new(MAIN, Some(id(old)), new).unwrap()]).unwrap();
        push.send(&Repository::open(&repo.work()).unwrap(), &remote, &NEVER).unwrap()
    };
    // Longer than the window of a channel (2 MiB), and it does not compress.
    let noise = noise(400_000);
    let next = commit(&repo, &base, &noise);
    assert!(send(&base, next).done());
    assert_eq!(repo.bare_git(&["rev-parse", "main"]), next.to_string());
    assert!(send(&base, commit(&repo, &base, "stale\n")).stale());

    let hook = repo.bare().join("hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho not on my watch >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let refused = send(&next.to_string(), commit(&repo, &next.to_string(), "more\n"));
    assert!(!refused.done() && refused.text.contains("not on my watch"), "{refused:?}");
    assert_eq!(repo.bare_git(&["rev-parse", "main"]), next.to_string());
    repo.bare_git(&["fsck", "--full", "--strict", "--no-dangling"]);
}

#[test]
fn a_large_pack_comes_whole_and_a_larger_one_than_allowed_is_cut() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let noise = noise(1_000_000);
    let tip = repo.push(&[("noise", &noise)], "noise");
    let remote = remote(&server, &repo, identity);
    let mirror = mirror(&repo);
    let little = Limits { received_bytes: 1_000_000, ..Limits::default() };
    let error = mirror.fetch(&remote, &main_branch(), &little, &NEVER).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { .. }), "{error:?}");
    let fetched = fetch(&mirror, &remote).unwrap();
    assert!(fetched.received_bytes > 4_000_000 && fetched.tips[MAIN].commit == id(&tip), "{fetched:?}");
}

#[test]
fn a_checkout_keeps_no_credential() {
    let server = Ssh::start(&Options::default());
    let private = server.user("user", &["-t", "ed25519"]);
    let repo = Repo::with_readme();
    let remote = remote(&server, &repo, identity(&private, &server.known_hosts()));
    let checkout = Checkout {
        remote: &remote,
        origin: None,
        revision: Revision::Branch("main".into()),
        branch: "main".into(),
        depth: NonZeroU32::new(1),
        limits: Limits::default(),
    };
    let work = repo.root().join("checkout");
    checkout.run(&work, &NEVER).unwrap();
    assert_eq!(git(&work, &["status", "--porcelain", "--branch"]), "## main...origin/main");
    assert_eq!(git(&work, &["remote", "get-url", "origin"]), server.url(&repo.bare()));
    let line = private.lines().nth(2).unwrap();
    let searched =
        std::process::Command::new("grep").args(["-r", "-e", line, "."]).current_dir(&work).output();
    assert_eq!(searched.unwrap().status.code(), Some(1));
}

#[test]
fn what_is_not_there_is_named() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let url = server.url(&repo.root().join("nothing.git"));
    let remote = ostler::git::Remote::builder(url.parse().unwrap()).credential(identity).build().unwrap();
    let error = fetch(&mirror(&repo), &remote).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{}", told(&error));
    assert_eq!(error.class(), Class::Invalid);
}
