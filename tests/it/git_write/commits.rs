use super::{Lab, commit, draft};
use ostler::git::{
    Repository,
    commit::{Change, Error, Identity, Message, Outcome, update_ref},
};

fn objects(lab: &Lab, repository: &std::path::Path) -> usize {
    lab.git(repository, &["cat-file", "--batch-all-objects", "--batch-check"]).lines().count()
}

#[test]
fn a_commit_is_what_git_would_have_made() {
    let lab = Lab::new();
    let (path, base) = lab.seeded("r", &[("keep", "1\n"), ("old/a", "a\n"), ("old/b", "b\n")]);
    let repository = Repository::open(&path).unwrap();
    let mut draft = draft(Some(base), &[("deep/er/new", "n\n"), ("keep", "2\n")]);
    draft.changes.push(Change::Remove { path: "old/a".into() });
    draft.changes.push(Change::Remove { path: "never/was".into() });
    let Outcome::Written(id) = draft.write(&repository, None).unwrap() else { panic!("unchanged") };
    let listed = lab.git(&path, &["ls-tree", "-r", "--name-only", &id.to_string()]);
    assert_eq!(listed, "deep/er/new\nkeep\nold/b");
    let shown = lab.git(
        &path,
        &["log", "-1", "--format=%an|%ae|%aI|%s|%(trailers:key=Ostler-Run,valueonly)", &id.to_string()],
    );
    assert_eq!(shown, "ostler|ostler@example.com|2026-02-03T04:05:06+00:00|record a run|default/fix-login");
    lab.fsck(&path);
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let lab = Lab::new();
    let (path, base) = lab.seeded("r", &[("a", "1\n")]);
    let before = objects(&lab, &path);
    let mut same = draft(Some(base), &[("b", "new content\n"), ("a", "1\n")]);
    same.changes.push(Change::Remove { path: "b".into() });
    assert_eq!(same.write(&Repository::open(&path).unwrap(), None).unwrap(), Outcome::Unchanged);
    assert_eq!(objects(&lab, &path), before);
}

#[test]
fn a_root_commit_needs_no_parent() {
    let lab = Lab::new();
    let path = lab.bare("r");
    let id = commit(&path, None, &[("README.md", "# ledger\n")], None);
    update_ref(&Repository::open(&path).unwrap(), "refs/heads/ostler/results", None, id).unwrap();
    assert_eq!(lab.head(&path, "ostler/results"), id);
    lab.fsck(&path);
}

#[test]
fn a_reference_moves_only_from_where_it_was_seen() {
    let lab = Lab::new();
    let (path, base) = lab.seeded("r", &[("a", "1\n")]);
    let repository = Repository::open(&path).unwrap();
    let first = commit(&path, Some(base), &[("a", "2\n")], None);
    let second = commit(&path, Some(base), &[("a", "3\n")], None);
    update_ref(&repository, "refs/heads/main", Some(base), first).unwrap();
    assert!(matches!(
        update_ref(&repository, "refs/heads/main", Some(base), second),
        Err(Error::Moved { .. })
    ));
    assert!(matches!(update_ref(&repository, "refs/heads/main", None, second), Err(Error::Moved { .. })));
    assert_eq!(lab.head(&path, "main"), first);
}

#[test]
fn what_would_break_a_commit_is_refused() {
    let lab = Lab::new();
    let (path, base) = lab.seeded("r", &[("a", "1\n")]);
    let repository = Repository::open(&path).unwrap();
    for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".git/config", "x/.GIT/hooks/y", "a\0b"] {
        let refused = draft(Some(base), &[(bad, "x")]).write(&repository, None);
        assert!(matches!(refused, Err(Error::Path(_))), "{bad:?}: {refused:?}");
    }
    assert!(Identity::new("a\nparent 00", "a@x").is_err());
    assert!(Identity::new("a", "a@x> 0 +0000").is_err());
    assert!(Message::new("two\nlines", "", &[]).is_err());
    assert!(Message::new("s", "", &[("Ostler-Run", "a\nOther: b")]).is_err());
    assert!(Message::new("s", "", &[("no space", "a")]).is_err());
}
