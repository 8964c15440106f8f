use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::{Lab, ostler, pushes::remote, write};
use ostler::git::{
    CommitId, Limits as FetchLimits, Repository, bundle,
    commit::Message,
    worktree::{
        BUNDLE_FILE, Changes, CheckedOut, Checkout, CheckoutError, Collect, Collected, Limits, PATCH_FILE,
        Revision,
    },
};

pub(super) fn check_out(from: &Path, to: &Path, revision: Revision) -> Result<CheckedOut, CheckoutError> {
    let remote = remote(from);
    let checkout = Checkout {
        remote: &remote,
        origin: None,
        revision,
        branch: "work".into(),
        depth: NonZeroU32::new(1),
        limits: FetchLimits::default(),
    };
    checkout.run(to, &AtomicBool::new(false))
}

pub(super) fn collector(directory: &Path, base: CommitId) -> Collect {
    Collect {
        directory: directory.to_owned(),
        base,
        branch: "refs/heads/ostler/default/r".into(),
        identity: ostler(),
        time: "2026-02-03T04:05:06Z".parse().unwrap(),
        message: Message::new("uncommitted changes", "", &[]).unwrap(),
        exclude: Vec::new(),
        limits: Limits::default(),
    }
}

pub(super) fn collect(lab: &Lab, directory: &Path, base: CommitId) -> Collected {
    collector(directory, base).run(&out(lab)).unwrap()
}

pub(super) fn out(lab: &Lab) -> PathBuf {
    let out = lab.path("out");
    std::fs::create_dir_all(&out).unwrap();
    out
}

pub(super) fn changed(collected: Collected) -> Changes {
    match collected {
        Collected::Changed(changes) => *changes,
        other => panic!("{other:?}"),
    }
}

/// A server's repository and a work tree of it.
pub(super) fn started(lab: &Lab, files: &[(&str, &str)]) -> (PathBuf, PathBuf, CommitId) {
    let (server, base) = lab.seeded("server", files);
    let work = lab.path("workspace");
    let done = check_out(&server, &work, Revision::Branch("main".into())).unwrap();
    assert_eq!(done.commit, base);
    (server, work, base)
}

#[test]
fn an_ordinary_git_works_in_a_checkout() {
    let lab = Lab::new();
    let source = lab.path("server-work");
    write(&source.join("run.sh"), "#!/bin/sh\n");
    std::os::unix::fs::symlink("a", source.join("link")).unwrap();
    std::fs::set_permissions(source.join("run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let files = [
        ("a", "1\n"),
        ("d/e/f", "2\n"),
        (".gitattributes", "*.bat text eol=crlf\n"),
        ("x.bat", "one\ntwo\n"),
    ];
    let (server, work, base) = started(&lab, &files);
    assert_eq!(lab.git(&work, &["status", "--porcelain"]), "");
    assert_eq!(lab.git(&work, &["symbolic-ref", "HEAD"]), "refs/heads/work");
    assert_eq!(lab.head(&work, "HEAD"), base);
    assert_eq!(lab.head(&work, "origin/main"), base);
    assert_eq!(lab.git(&work, &["remote", "get-url", "origin"]), server.to_str().unwrap());
    assert_eq!(std::fs::read_link(work.join("link")).unwrap(), Path::new("a"));
    assert_eq!(std::fs::read_to_string(work.join("x.bat")).unwrap(), "one\r\ntwo\r\n");
    assert_eq!(lab.git(&work, &["ls-files", "-s", "run.sh"]).split(' ').next(), Some("100755"));
    lab.fsck(&work);
    write(&work.join("a"), "2\n");
    lab.git(&work, &["commit", "-qam", "on"]);
    assert_eq!(lab.git(&work, &["log", "-1", "--format=%P"]), base.to_string());
}

#[test]
fn a_shallow_checkout_of_a_commit_or_tag() {
    let lab = Lab::new();
    let (server, first) = lab.seeded("server", &[("a", "1\n")]);
    let second = super::commit(&server, Some(first), &[("a", "2\n")], None);
    lab.git(&server, &["update-ref", "refs/heads/main", &second.to_string()]);
    lab.git(&server, &["tag", "-a", "-m", "one", "v1", &first.to_string()]);
    lab.git(&server, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let tag = check_out(&server, &lab.path("tag"), Revision::Tag("v1".into())).unwrap();
    assert_eq!(tag.commit, first);
    let by_id = check_out(&server, &lab.path("id"), Revision::Commit(second)).unwrap();
    assert_eq!(by_id.commit, second);
    assert_eq!(lab.git(&lab.path("id"), &["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(lab.git(&lab.path("id"), &["status", "--porcelain"]), "");
    let gone = check_out(&server, &lab.path("none"), Revision::Branch("gone".into()));
    assert!(
        matches!(gone, Err(CheckoutError::Fetch(error)) if matches!(*error, ostler::git::Error::NotFound { .. }))
    );
}

#[test]
fn only_an_empty_folder_is_taken() {
    let lab = Lab::new();
    let (server, _) = lab.seeded("server", &[("a", "1\n")]);
    write(&lab.path("full/file"), "x");
    std::fs::create_dir(lab.path("outside")).unwrap();
    std::os::unix::fs::symlink(lab.path("outside"), lab.path("link")).unwrap();
    for taken in ["full", "link"] {
        let refused = check_out(&server, &lab.path(taken), Revision::Branch("main".into()));
        assert!(matches!(refused, Err(CheckoutError::NotEmpty { .. })), "{taken}");
    }
    assert_eq!(std::fs::read_dir(lab.path("outside")).unwrap().count(), 0);
}

/// A repository whose tree holds a symlink and a file behind it, as only an attacker makes it.
#[test]
fn a_tree_cannot_write_through_its_own_symlink() {
    let lab = Lab::new();
    let (server, _) = lab.seeded("server", &[("a", "1\n")]);
    let outside = lab.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let store = |kind: &str, content: &[u8]| {
        write(&lab.path("object"), content);
        let file = lab.path("object");
        lab.git(&server, &["hash-object", "--literally", "-w", "-t", kind, file.to_str().unwrap()])
    };
    let raw = |id: &str| {
        (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let target = store("blob", outside.to_str().unwrap().as_bytes());
    let file = store("blob", b"pwned\n");
    let folder = store("tree", &[b"100644 evil\0".as_slice(), &raw(&file)].concat());
    let both = [b"120000 d\0".as_slice(), &raw(&target), b"40000 d\0", &raw(&folder)].concat();
    let root = store("tree", &both);
    let commit = lab.git(&server, &["commit-tree", "-m", "evil", &root]);
    lab.git(&server, &["update-ref", "refs/heads/evil", &commit]);
    let result = check_out(&server, &lab.path("w"), Revision::Branch("evil".into()));
    assert!(result.is_err(), "{result:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn nothing_done_is_unchanged() {
    let lab = Lab::new();
    let (_, work, base) =
        started(&lab, &[("a", "1\n"), (".gitattributes", "*.bat text eol=crlf\n"), ("x.bat", "one\n")]);
    assert_eq!(collect(&lab, &work, base), Collected::Unchanged { skipped: vec![] });
}

#[test]
fn commits_and_uncommitted_changes_come_home() {
    let lab = Lab::new();
    let files = [
        ("a", "1\n2\n3\n"),
        ("gone", "x\n"),
        ("mode", "m\n"),
        (".gitignore", "*.log\n/target/\n"),
        ("kept.log", "k\n"),
    ];
    let (server, base) = lab.seeded("server", &files);
    let base = {
        // A tracked file that is ignored.
        let source = lab.path("server-work");
        lab.git(&source, &["add", "-f", "kept.log"]);
        lab.git(&source, &["commit", "-q", "--allow-empty", "-m", "force"]);
        lab.git(&source, &["push", "-q", server.to_str().unwrap(), "main"]);
        assert_ne!(lab.head(&server, "main"), base);
        lab.head(&server, "main")
    };
    let work = lab.path("workspace");
    check_out(&server, &work, Revision::Branch("main".into())).unwrap();
    write(&work.join("a"), "1\ntwo\n3\n");
    lab.git(&work, &["commit", "-qam", "agent: change a"]);
    std::fs::remove_file(work.join("gone")).unwrap();
    std::fs::set_permissions(work.join("mode"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    write(&work.join("new dir/é\"x"), "no newline");
    write(&work.join("bin"), b"\0\x01");
    write(&work.join("kept.log"), "k2\n");
    write(&work.join("other.log"), "ignored\n");
    write(&work.join("target/out"), "ignored\n");
    write(&work.join("AGENTS.md"), "ours\n");
    std::os::unix::fs::symlink("/etc/passwd", work.join("link")).unwrap();
    let mut collect = collector(&work, base);
    collect.exclude = vec!["/AGENTS.md".into()];
    let out = out(&lab);
    let changes = changed(collect.run(&out).unwrap());
    assert!(changes.uncommitted && !changes.rewritten && !changes.patch_truncated);
    assert_eq!(changes.skipped, []);
    let subjects: Vec<_> = changes.commits.iter().map(|commit| commit.subject.as_str()).collect();
    assert_eq!(subjects, ["uncommitted changes", "agent: change a"]);
    let paths: Vec<_> = changes
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.additions, file.deletions, file.binary))
        .collect();
    assert_eq!(
        paths,
        [
            ("a", 1, 1, false),
            ("bin", 0, 0, true),
            ("gone", 0, 1, false),
            ("kept.log", 1, 1, false),
            ("link", 1, 0, false),
            ("mode", 0, 0, false),
            ("new dir/é\"x", 1, 0, false),
        ]
    );
    assert_eq!((changes.additions, changes.deletions), (4, 3));

    // Git's own view of the same commits, after the bundle went through quarantine.
    let accepted = bundle::accept(
        &Repository::open(&server).unwrap(),
        base,
        std::fs::File::open(out.join(BUNDLE_FILE)).unwrap(),
        &bundle::Limits::default(),
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!(accepted.heads[0].1.to_string(), changes.head);
    lab.git(&server, &["update-ref", "refs/heads/work", &changes.head]);
    lab.fsck(&server);
    let numstat = lab.git(
        &server,
        &["-c", "core.quotePath=false", "diff", "--numstat", "-z", &changes.base, &changes.head],
    );
    let expected = changes.files.iter().map(|file| {
        if file.binary {
            format!("-\t-\t{}\0", file.path)
        } else {
            format!("{}\t{}\t{}\0", file.additions, file.deletions, file.path)
        }
    });
    assert_eq!(numstat, expected.collect::<String>());

    // The patch makes the same tree, but for the binary file that it only names.
    let check = lab.path("check");
    lab.git(lab.root.path(), &["clone", "-q", server.to_str().unwrap(), "check"]);
    let patch = out.join(PATCH_FILE);
    lab.git(&check, &["apply", "--index", "--exclude=bin", patch.to_str().unwrap()]);
    let listed = |what: &str| {
        lab.git(&check, &["ls-tree", "-r", what])
            .lines()
            .filter(|l| !l.ends_with("\tbin"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let tree = lab.git(&check, &["write-tree"]);
    lab.git(&check, &["fetch", "-q", "origin", "work"]);
    assert_eq!(listed(&tree), listed("FETCH_HEAD"));
    // The agent's own repository is as the agent left it.
    assert_eq!(lab.git(&work, &["log", "-1", "--format=%s"]), "agent: change a");
}

#[test]
fn line_ends_are_stored_as_git_would() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[(".gitattributes", "*.bat text eol=crlf\n"), ("x.bat", "one\n")]);
    write(&work.join("x.bat"), "one\r\ntwo\r\n");
    let changes = changed(collect(&lab, &work, base));
    assert_eq!((changes.additions, changes.deletions), (1, 0));
}

#[test]
fn rewritten_history_becomes_one_commit_on_the_base() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("a", "1\n")]);
    write(&work.join("a"), "2\n");
    lab.git(&work, &["commit", "-q", "--amend", "-a", "-m", "amended"]);
    let changes = changed(collect(&lab, &work, base));
    assert!(changes.rewritten && changes.uncommitted);
    assert_eq!(changes.commit_count, 1);
    // A branch without any commit.
    lab.git(&work, &["checkout", "-q", "--orphan", "fresh"]);
    let changes = changed(collect(&lab, &work, base));
    assert!(changes.rewritten);
    assert_eq!(changes.files.len(), 1);
}

#[test]
fn packed_references_and_detached_heads_are_read() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("a", "1\n")]);
    write(&work.join("a"), "2\n");
    lab.git(&work, &["commit", "-qam", "two"]);
    lab.git(&work, &["gc", "-q"]);
    assert_eq!(changed(collect(&lab, &work, base)).commit_count, 1);
    lab.git(&work, &["checkout", "-q", "--detach"]);
    let changes = changed(collect(&lab, &work, base));
    assert!(!changes.uncommitted);
    assert_eq!(changes.head, lab.head(&work, "HEAD").to_string());
}
