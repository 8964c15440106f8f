//! What is in a commit, and what changed.

use ostler::git::{Change, EntryKind, Error, LimitKind, Limits, Repository, Selection};

use super::id;
use crate::servers::repo::Repo;

fn select(under: &str, include: &[&str], exclude: &[&str]) -> Selection {
    Selection::new(under, include, exclude).unwrap()
}

fn everything() -> Selection {
    Selection::default()
}

fn shown(changes: &[Change]) -> Vec<String> {
    let show = |change: &Change| match change {
        Change::Added(new) => format!("+ {}", new.path),
        Change::Removed(old) => format!("- {}", old.path),
        Change::Modified { new, .. } => format!("~ {}", new.path),
        Change::Renamed { old, new } => format!("{} > {}", old.path, new.path),
    };
    changes.iter().map(show).collect()
}

#[test]
fn files_below_a_folder_by_globs() {
    let repo = Repo::new();
    let files =
        [("teams/a/run.yaml", "a"), ("teams/b/run.yaml", "bb"), ("teams/b/notes.md", ""), ("x.yaml", "")];
    let tip = id(&repo.push(&files, "files"));
    let read = Repository::open(&repo.work()).unwrap();
    let paths = |selection: &Selection| -> Vec<(String, u64)> {
        let files = read.files(tip, selection, &Limits::default()).unwrap();
        files.into_iter().map(|file| (file.path, file.size)).collect()
    };
    assert_eq!(paths(&everything()).len(), 4);
    assert_eq!(
        paths(&select("./teams", &["**/*.yaml"], &["teams/a/**"])),
        [("teams/b/run.yaml".to_owned(), 2)]
    );
    let missing = read.files(tip, &select("nowhere", &[], &[]), &Limits::default());
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    let file = read.file(tip, "teams/b/run.yaml", &Limits::default()).unwrap().unwrap();
    assert_eq!(read.blob(file.blob, 2).unwrap(), b"bb");
    assert!(matches!(
        read.blob(file.blob, 1),
        Err(Error::LimitExceeded { what: LimitKind::FileBytes, limit: 1, .. })
    ));
    assert_eq!(read.file(tip, "teams/b", &Limits::default()).unwrap(), None);
}

#[test]
fn links_submodules_and_bad_names_are_flagged() {
    let repo = Repo::with_readme();
    std::os::unix::fs::symlink("/etc/passwd", repo.work().join("link")).unwrap();
    repo.write("run.sh", "#!/bin/sh\n");
    let other = "1".repeat(40);
    repo.git(&["add", "--all"]);
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{other},module")]);
    repo.write("bad\nname", "");
    repo.git(&["add", "bad\nname"]);
    repo.git(&["update-index", "--chmod=+x", "run.sh"]);
    repo.git(&["commit", "--quiet", "-m", "odd"]);
    let tip = id(&repo.git(&["rev-parse", "HEAD"]));
    let read = Repository::open(&repo.work()).unwrap();
    let files = read.files(tip, &everything(), &Limits::default()).unwrap();
    let kinds: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("README.md", EntryKind::File),
            ("bad\u{fffd}name", EntryKind::BadName),
            ("link", EntryKind::Symlink),
            ("module", EntryKind::Submodule),
            ("run.sh", EntryKind::Executable),
        ]
    );
}

#[test]
fn a_diff_names_what_was_added_modified_removed_and_renamed() {
    let repo = Repo::new();
    let old =
        id(&repo.push(&[("a/keep", "1"), ("a/edit", "1"), ("b/move", "content"), ("gone", "bye")], "old"));
    std::fs::remove_file(repo.work().join("gone")).unwrap();
    std::fs::rename(repo.work().join("b/move"), repo.work().join("a/moved")).unwrap();
    let new = id(&repo.push(&[("a/edit", "2"), ("gone/file", "now a folder")], "new"));
    let read = Repository::open(&repo.work()).unwrap();
    let diff = |from, to, selection: &Selection| read.diff(from, to, selection, &Limits::default()).unwrap();
    assert_eq!(
        shown(&diff(old, new, &everything())),
        ["~ a/edit", "b/move > a/moved", "- gone", "+ gone/file"]
    );
    assert_eq!(shown(&diff(old, new, &select("a", &[], &[]))), ["~ a/edit", "+ a/moved"]);
    assert_eq!(shown(&diff(new, old, &select("gone", &[], &[]))), ["- gone/file"]);
    assert!(diff(new, new, &everything()).is_empty());
}

#[test]
fn a_diff_of_one_file_among_a_thousand_reads_that_one() {
    let repo = Repo::new();
    let files: Vec<_> =
        (0..1000).map(|n| (format!("runs/{}/{n}.yaml", n % 10), format!("n: {n}\n"))).collect();
    let borrowed: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let old = id(&repo.push(&borrowed, "many"));
    let new = id(&repo.push(&[("runs/3/13.yaml", "n: thirteen\n")], "one"));

    // A mirror without any blob but the two that differ: reading another one would fail.
    let blobs: Vec<String> =
        [old, new].map(|commit| repo.git(&["rev-parse", &format!("{commit}:runs/3/13.yaml")])).to_vec();
    let lean = repo.root().join("lean.git");
    crate::servers::repo::git(repo.root(), &["init", "--quiet", "--bare", "lean.git"]);
    let listed = repo.git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]);
    for (object, kind) in listed.lines().filter_map(|line| line.split_once(' ')) {
        if kind != "blob" || blobs.iter().any(|blob| blob == object) {
            let (from, to) = (object.split_at(2), lean.join("objects"));
            std::fs::create_dir_all(to.join(from.0)).unwrap();
            std::fs::copy(
                repo.work().join(".git/objects").join(from.0).join(from.1),
                to.join(from.0).join(from.1),
            )
            .unwrap();
        }
    }
    let read = Repository::open(&lean).unwrap();
    let changes = read.diff(old, new, &everything(), &Limits::default()).unwrap();
    assert_eq!(shown(&changes), ["~ runs/3/13.yaml"]);
    assert!(
        read.files(new, &everything(), &Limits::default()).is_err(),
        "the other blobs are really not there"
    );
}

#[test]
fn limits_of_a_tree() {
    let repo = Repo::new();
    let tip = id(&repo.push(&[("a", "1"), ("b", "1"), ("deep/er/still/file", "1")], "files"));
    let read = Repository::open(&repo.bare()).unwrap();
    for (limits, expected) in [
        (Limits { files: 2, ..Limits::default() }, LimitKind::Files),
        (Limits { path_bytes: 10, ..Limits::default() }, LimitKind::PathBytes),
        (Limits { tree_depth: 2, ..Limits::default() }, LimitKind::TreeDepth),
    ] {
        let error = read.files(tip, &everything(), &limits).unwrap_err();
        assert!(matches!(&error, Error::LimitExceeded { what, .. } if *what == expected), "{error:?}");
    }
}

#[test]
fn commits_say_what_their_authors_wrote() {
    let repo = Repo::with_readme();
    let tip = repo.push(&[("a", "1")], "subject\n\nbody\n\nOstler-Run: x");
    let read = Repository::open(&repo.bare()).unwrap();
    let commit = read.commit(id(&tip)).unwrap();
    assert_eq!((commit.author.name.as_str(), commit.author.email.as_str()), ("Ada", "ada@example.com"));
    assert_eq!((commit.committer.name.as_str(), commit.committer.seconds), ("Cora", 1_700_000_001));
    assert_eq!(commit.message, "subject\n\nbody\n\nOstler-Run: x\n");
    assert_eq!(commit.parents, [id(&repo.git(&["rev-parse", "HEAD~1"]))]);
    assert_eq!(commit.tree.to_string(), repo.git(&["rev-parse", "HEAD^{tree}"]));
    assert!(matches!(read.commit(id(&"1".repeat(40))), Err(Error::NotFound { .. })));
    assert!(matches!(read.commit(id(&commit.tree.to_string())), Err(Error::Corrupt { .. })));
}

#[test]
fn revisions_and_ranges_resolve_anywhere_in_a_checkout() {
    let repo = Repo::with_readme();
    let first = id(&repo.git(&["rev-parse", "HEAD"]));
    repo.git(&["checkout", "--quiet", "-b", "feature"]);
    let second = id(&repo.commit(&[("sub/file", "1")], "second"));
    repo.git(&["tag", "-a", "-m", "one", "v1"]);
    let read = Repository::open(&repo.work().join("sub")).unwrap();
    for (revision, commit) in [("main", first), ("HEAD", second), ("v1", second), ("feature~1", first)] {
        assert_eq!(read.resolve(revision).unwrap(), commit, "{revision}");
    }
    let range = read.range("main..feature").unwrap();
    assert_eq!((range.from, range.to), (Some(first), second));
    assert_eq!(read.range("main..").unwrap().to, second);
    assert_eq!(read.range("main").unwrap().from, None);
    assert!(matches!(read.range("main...feature"), Err(Error::Malformed { .. })));
    assert!(matches!(read.resolve("nowhere"), Err(Error::NotFound { .. })));
    assert!(matches!(read.resolve("HEAD^{tree}"), Err(Error::NotFound { .. })));
    let nowhere = tempfile::tempdir().unwrap();
    assert!(matches!(Repository::open(nowhere.path()), Err(Error::NotFound { .. })));
}

#[test]
fn a_linked_worktree_reads_like_its_repository() {
    let repo = Repo::with_readme();
    repo.git(&["worktree", "add", "--quiet", "-b", "other", "../linked"]);
    let linked = repo.root().join("linked");
    let read = Repository::open(&linked).unwrap();
    assert_eq!(read.resolve("HEAD").unwrap(), read.resolve("main").unwrap());
    assert_ne!(read.git_dir(), read.common_dir());
}
