use std::{io::Write as _, path::Path, sync::atomic::AtomicBool};

use super::{Lab, commit, write};
use ostler::git::{
    CommitId, Repository,
    bundle::{self, Accepted, Error, Flaw, Limits},
    pack,
};
use proptest::prelude::*;

fn accept(repository: &Path, base: CommitId, bundle: &[u8]) -> Result<Accepted, Error> {
    accept_with(repository, base, bundle, &Limits::default())
}

fn accept_with(repository: &Path, base: CommitId, bundle: &[u8], limits: &Limits) -> Result<Accepted, Error> {
    bundle::accept(&Repository::open(repository).unwrap(), base, bundle, limits, &AtomicBool::new(false))
}

fn numbered(count: usize) -> String {
    (0..count).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n") + "\n"
}

fn bundle_of(repository: &Path, base: CommitId, head: CommitId) -> Vec<u8> {
    let mut out = Vec::new();
    let heads = [("refs/heads/work".to_owned(), head)];
    bundle::write(
        &Repository::open(repository).unwrap(),
        Some(base),
        &heads,
        &mut out,
        &pack::Limits::default(),
    )
    .unwrap();
    out
}

/// An agent's clone and a bare repository with the same base.
fn pair(lab: &Lab) -> (std::path::PathBuf, std::path::PathBuf, CommitId) {
    let (ours, base) = lab.seeded("ours", &[("a", "1\n"), ("d/b", "2\n")]);
    (ours, lab.path("ours-work"), base)
}

/// What is in the folder of a repository, but for what the test itself does not care about.
fn files_of(repository: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack = vec![repository.to_owned()];
    while let Some(folder) = stack.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                stack.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn git_reads_what_we_write() {
    let lab = Lab::new();
    let (ours, _, base) = pair(&lab);
    let first = commit(&ours, Some(base), &[("new", "n\n")], None);
    let head = commit(&ours, Some(first), &[("d/b", "3\n")], None);
    let clone = lab.path("clone");
    lab.git(lab.root.path(), &["clone", "-q", ours.to_str().unwrap(), "clone"]);
    write(&lab.path("b"), bundle_of(&ours, base, head));
    let verified = lab.git(&clone, &["bundle", "verify", "../b"]);
    assert!(verified.contains("refs/heads/work"), "{verified}");
    lab.git(&clone, &["fetch", "-q", "../b", "refs/heads/work:work"]);
    assert_eq!(lab.head(&clone, "work"), head);
    // Two commits, two root trees, folder d, two blobs.
    let pack = lab.git(&clone, &["rev-list", "--objects", "work", "^main"]);
    assert_eq!(pack.lines().count(), 7, "{pack}");
    lab.fsck(&clone);
}

#[test]
fn we_read_what_git_writes() {
    let lab = Lab::new();
    let (ours, work, base) = pair(&lab);
    let lines = numbered(2_000);
    write(&work.join("big"), &lines);
    lab.git(&work, &["add", "-A"]);
    lab.git(&work, &["commit", "-qm", "one"]);
    write(&work.join("big"), lines.replace("line 7\n", "LINE 7\n"));
    lab.git(&work, &["mv", "d/b", "moved"]);
    lab.git(&work, &["commit", "-qam", "two"]);
    lab.git(&work, &["bundle", "create", "-q", "../b", &format!("{base}..main")]);
    let accepted = accept(&ours, base, &std::fs::read(lab.path("b")).unwrap()).unwrap();
    assert_eq!(accepted.heads, [("refs/heads/main".to_owned(), lab.head(&work, "main"))]);
    assert_eq!(accepted.commits.len(), 2);
    assert_eq!(accepted.paths, ["big", "d/b", "moved"]);
    lab.git(&ours, &["update-ref", "refs/heads/work", &accepted.heads[0].1.to_string()]);
    lab.fsck(&ours);
    // Again: the same answer, and nothing left over.
    assert_eq!(accept(&ours, base, &std::fs::read(lab.path("b")).unwrap()).unwrap(), accepted);
    assert!(
        !files_of(&ours)
            .iter()
            .any(|path| path.contains("quarantine") || Path::new(path).extension() == Some("keep".as_ref()))
    );
}

#[test]
fn a_path_that_a_later_commit_takes_back_is_still_named() {
    let lab = Lab::new();
    let (ours, work, base) = pair(&lab);
    write(&work.join(".github/workflows/ci.yml"), "on: push\n");
    lab.git(&work, &["add", "-A"]);
    lab.git(&work, &["commit", "-qm", "sneak"]);
    lab.git(&work, &["rm", "-q", "-r", ".github"]);
    write(&work.join("a"), "2\n");
    lab.git(&work, &["commit", "-qam", "innocent"]);
    let bundle = bundle_of(&work, base, lab.head(&work, "HEAD"));
    assert_eq!(accept(&ours, base, &bundle).unwrap().paths, [".github/workflows/ci.yml", "a"]);
}

fn refused(repository: &Path, base: CommitId, bundle: &[u8]) -> Error {
    let before = files_of(repository);
    let error = accept(repository, base, bundle).unwrap_err();
    assert_eq!(files_of(repository), before, "a refused bundle leaves nothing behind");
    error
}

#[test]
fn commits_that_do_not_descend_from_the_base_are_refused() {
    let lab = Lab::new();
    let (ours, work, base) = pair(&lab);
    lab.git(&work, &["checkout", "-q", "--orphan", "other"]);
    lab.git(&work, &["commit", "-qm", "orphan"]);
    let orphan = lab.head(&work, "HEAD");
    assert!(matches!(
        refused(&ours, base, &bundle_of(&work, base, orphan)),
        Error::Object { reason: Flaw::NotDescending, .. }
    ));
    // A merge that brings the orphan in.
    lab.git(&work, &["checkout", "-q", "main"]);
    lab.git(&work, &["merge", "-q", "--allow-unrelated-histories", "-m", "merge", "other"]);
    assert!(matches!(
        refused(&ours, base, &bundle_of(&work, base, lab.head(&work, "HEAD"))),
        Error::Object { reason: Flaw::NotDescending, .. }
    ));
    // A bundle on top of another commit than the run's base.
    lab.git(&work, &["checkout", "-q", "main"]);
    let merge = lab.head(&work, "HEAD");
    let later = commit(&work, Some(merge), &[("x", "1\n")], None);
    assert!(
        matches!(refused(&ours, base, &bundle_of(&work, merge, later)), Error::Prerequisite(id) if id.to_string().parse::<CommitId>().unwrap() == merge)
    );
    assert!(matches!(refused(&ours, merge, &bundle_of(&work, base, later)), Error::NoBase(_)));
}

/// Builds objects that no porcelain would make.
fn raw_object(lab: &Lab, repository: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = lab
        .command("git", repository)
        .args(["hash-object", "-t", kind, "-w", "--stdin", "--literally"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn id_bytes(id: &str) -> Vec<u8> {
    (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn tree(lab: &Lab, repository: &Path, entries: &[(&str, &str, &str)]) -> String {
    let raw: Vec<u8> = entries
        .iter()
        .flat_map(|(mode, name, id)| [format!("{mode} {name}\0").into_bytes(), id_bytes(id)].concat())
        .collect();
    raw_object(lab, repository, "tree", &raw)
}

fn commit_of(lab: &Lab, repository: &Path, tree: &str, parent: CommitId) -> CommitId {
    let text =
        format!("tree {tree}\nparent {parent}\nauthor A <a@x> 0 +0000\ncommitter A <a@x> 0 +0000\n\nm\n");
    raw_object(lab, repository, "commit", text.as_bytes()).parse().unwrap()
}

#[test]
fn trees_that_git_would_not_make_are_refused() {
    let lab = Lab::new();
    let (ours, work, base) = pair(&lab);
    let blob = raw_object(&lab, &work, "blob", b"[core]\n\tfsmonitor = evil\n");
    let config = tree(&lab, &work, &[("100644", "config", &blob)]);
    for (entries, what) in [
        (vec![("40000", ".GIT", config.as_str())], "name"),
        (vec![("40000", ".git", config.as_str())], "name"),
        (vec![("40000", "..", config.as_str())], "name"),
        (vec![("100644", "a/b", blob.as_str())], "name"),
        (vec![("100666", "a", blob.as_str())], "mode"),
        (vec![("100644", "b", blob.as_str()), ("100644", "a", blob.as_str())], "order"),
        (vec![("100644", "a", config.as_str())], "kind"),
        (vec![("100644", "a", "0123456789012345678901234567890123456789")], "missing"),
    ] {
        let root = tree(&lab, &work, &entries);
        let head = commit_of(&lab, &work, &root, base);
        // Our own writer refuses some of these; pack-objects packs anything.
        let bundle = packed_by_git(&lab, &work, base, head, &[&root, &config, &blob]);
        let error = refused(&ours, base, &bundle);
        let fits = match &error {
            Error::Object { reason: Flaw::Name(_), .. } => what == "name",
            Error::Object { reason: Flaw::Mode { .. }, .. } => what == "mode",
            Error::Object { reason: Flaw::Order, .. } => what == "order",
            Error::Object { reason: Flaw::Kind("blob"), .. } => what == "kind",
            Error::Object { reason: Flaw::Missing, .. } => what == "missing",
            _ => false,
        };
        assert!(fits, "{entries:?}: {error:?}");
    }
}

fn packed_by_git(lab: &Lab, repository: &Path, base: CommitId, head: CommitId, objects: &[&str]) -> Vec<u8> {
    let mut child = lab
        .command("git", repository)
        .args(["pack-objects", "-q", "--stdout"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let list = format!("{head}\n{}\n", objects.join("\n"));
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let pack = child.wait_with_output().unwrap().stdout;
    [format!("# v2 git bundle\n-{base} base\n{head} refs/heads/work\n\n").as_bytes(), &pack].concat()
}

#[test]
fn objects_that_nothing_refers_to_are_refused() {
    let lab = Lab::new();
    let (ours, work, base) = pair(&lab);
    let blob = raw_object(&lab, &work, "blob", b"hidden\n");
    let head = commit(&work, Some(base), &[("x", "1\n")], None);
    let tree = lab.git(&work, &["rev-parse", &format!("{head}^{{tree}}")]);
    let x = lab.git(&work, &["rev-parse", &format!("{head}:x")]);
    let error = refused(&ours, base, &packed_by_git(&lab, &work, base, head, &[&tree, &x, &blob]));
    assert!(matches!(error, Error::Object { reason: Flaw::Unreachable, .. }), "{error:?}");
    accept(&ours, base, &packed_by_git(&lab, &work, base, head, &[&tree, &x])).unwrap();
}

#[test]
fn caps_hold_before_the_damage_is_done() {
    let lab = Lab::new();
    let (ours, work, base) = pair(&lab);
    // 16 MiB of zeros are 16 KiB on the wire.
    let zeros = "0".repeat(16 << 20);
    let head = commit(&work, Some(base), &[("bomb", &zeros)], None);
    let bomb = bundle_of(&work, base, head);
    assert!(bomb.len() < 1 << 20);
    let limited = |limits: Limits| accept_with(&ours, base, &bomb, &limits);
    let limit = |result: Result<Accepted, Error>| match result {
        Err(Error::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(limited(Limits { bytes: 1_000, ..Limits::default() })), "bytes");
    assert_eq!(limit(limited(Limits { objects: 2, ..Limits::default() })), "objects");
    assert_eq!(limit(limited(Limits { total_bytes: 1 << 20, ..Limits::default() })), "bytes unpacked");
    assert!(limited(Limits { object_bytes: 1 << 20, ..Limits::default() }).is_err());
    limited(Limits::default()).unwrap();

    // A tree of 40 objects with 2^40 paths.
    let blob = raw_object(&lab, &work, "blob", b"x");
    let mut level = tree(&lab, &work, &[("100644", "f", &blob)]);
    let mut objects = vec![blob, level.clone()];
    for _ in 0..40 {
        level = tree(&lab, &work, &[("40000", "a", &level), ("40000", "b", &level)]);
        objects.push(level.clone());
    }
    let head = commit_of(&lab, &work, &level, base);
    let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
    let bundle = packed_by_git(&lab, &work, base, head, &objects);
    assert!(matches!(refused(&ours, base, &bundle), Error::Changes(_)));
    let shallow = accept_with(&ours, base, &bundle, &Limits { depth: 30, ..Limits::default() });
    assert_eq!(limit(shallow), "nested folders");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A bundle with flipped, cut or repeated bytes is refused, or is what it was; it never panics.
    #[test]
    fn no_mutation_of_a_bundle_panics(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        reseal in any::<bool>(),
    ) {
        FIXTURE.with(|(_lab, ours, base, bundle)| {
            let mut bytes = bundle.clone();
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if reseal {
                reseal_pack(&mut bytes);
            }
            if let Ok(accepted) = accept(ours, *base, &bytes) {
                prop_assert_eq!(accepted.heads.len(), 1);
            }
            Ok(())
        })?;
    }
}

/// Puts the right checksum behind a changed pack, so that the mutation gets past the first door.
fn reseal_pack(bundle: &mut Vec<u8>) {
    let Some(start) = bundle.windows(4).position(|window| window == b"PACK") else { return };
    let end = bundle.len().saturating_sub(20).max(start);
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&bundle[start..end]);
    let id = hasher.try_finalize().unwrap();
    bundle.truncate(end);
    bundle.extend_from_slice(id.as_slice());
}

thread_local! {
    static FIXTURE: (Lab, std::path::PathBuf, CommitId, Vec<u8>) = {
        let lab = Lab::new();
        let (ours, work, base) = pair(&lab);
        let lines = numbered(300);
        write(&work.join("big"), &lines);
        lab.git(&work, &["add", "-A"]);
        lab.git(&work, &["commit", "-qm", "one"]);
        write(&work.join("big"), lines.replace("line 7\n", "LINE 7\n"));
        lab.git(&work, &["commit", "-qam", "two"]);
        // Made by git, so that deltas are in it.
        lab.git(&work, &["bundle", "create", "-q", "../b", &format!("{base}..main")]);
        let bundle = std::fs::read(lab.path("b")).unwrap();
        (lab, ours, base, bundle)
    };
}
