//! Work trees as an agent with bad intentions leaves them.

use std::path::Path;

use super::{
    Lab,
    worktrees::{changed, collect, collector, out, started},
    write,
};
use ostler::git::{CommitId, worktree::Collected};

fn broken(lab: &Lab, work: &Path, base: CommitId) -> String {
    match collect(lab, work, base) {
        Collected::Broken { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn no_repository_is_missing() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("a", "1\n")]);
    std::fs::remove_dir_all(work.join(".git")).unwrap();
    assert_eq!(collect(&lab, &work, base), Collected::Missing);
}

#[test]
fn a_repository_that_leads_elsewhere_is_broken() {
    let lab = Lab::new();
    let (server, work, base) = started(&lab, &[("a", "1\n")]);
    let git = work.join(".git");

    let alternates = git.join("objects/info/alternates");
    write(&alternates, format!("{}\n", server.join("objects").display()));
    assert!(broken(&lab, &work, base).contains("alternates"));
    std::fs::remove_file(&alternates).unwrap();

    write(&git.join("commondir"), server.to_str().unwrap());
    assert!(broken(&lab, &work, base).contains("commondir"));
    std::fs::remove_file(git.join("commondir")).unwrap();

    std::os::unix::fs::symlink(server.join("objects/pack"), git.join("objects/link")).unwrap();
    assert!(broken(&lab, &work, base).contains("neither"));
    std::fs::remove_file(git.join("objects/link")).unwrap();

    fifo(&git.join("objects/pack/pack-1.idx"));
    assert!(broken(&lab, &work, base).contains("neither"));
    std::fs::remove_file(git.join("objects/pack/pack-1.idx")).unwrap();

    write(&git.join("HEAD"), "ref: refs/../../../server/HEAD\n");
    assert!(broken(&lab, &work, base).contains("HEAD"));
    std::fs::remove_file(git.join("HEAD")).unwrap();
    fifo(&git.join("HEAD"));
    assert!(broken(&lab, &work, base).contains("HEAD"));
    std::fs::remove_file(git.join("HEAD")).unwrap();
    std::os::unix::fs::symlink(server.join("HEAD"), git.join("HEAD")).unwrap();
    assert!(broken(&lab, &work, base).contains("symlink"));
    std::fs::remove_file(git.join("HEAD")).unwrap();
    write(&git.join("HEAD"), "0123456789012345678901234567890123456789\n");
    assert!(broken(&lab, &work, base).contains("HEAD"));

    std::fs::rename(&git, lab.path("moved")).unwrap();
    std::os::unix::fs::symlink(lab.path("moved"), &git).unwrap();
    assert!(broken(&lab, &work, base).contains("symlink"));
    std::fs::remove_file(&git).unwrap();
    write(&git, format!("gitdir: {}\n", server.display()));
    assert!(broken(&lab, &work, base).contains("not a folder"));
}

/// Everything in a repository that Git would run, each leaving a mark.
#[test]
fn nothing_is_executed() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("a", "1\n")]);
    let mark = lab.path("executed");
    let program = lab.path("evil");
    write(&program, format!("#!/bin/sh\necho \"$0\" >> {}\ncat\n", mark.display()));
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let evil = program.display();
    write(
        &work.join(".git/config"),
        format!(
            "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {evil}\n\thooksPath = {}\n\tpager = {evil}\n\tsshCommand = {evil}\n\
             [filter \"evil\"]\n\tclean = {evil}\n\tsmudge = {evil}\n\tprocess = {evil}\n\trequired = true\n\
             [diff \"evil\"]\n\ttextconv = {evil}\n\tcommand = {evil}\n[diff]\n\texternal = {evil}\n\
             [gpg]\n\tprogram = {evil}\n[commit]\n\tgpgSign = true\n",
            lab.path("hooks").display()
        ),
    );
    for hook in ["pre-commit", "post-commit", "reference-transaction", "post-index-change"] {
        for folder in [lab.path("hooks"), work.join(".git/hooks")] {
            write(&folder.join(hook), "");
            std::fs::copy(&program, folder.join(hook)).unwrap();
        }
    }
    write(&work.join(".gitattributes"), "* filter=evil diff=evil\n");
    write(&work.join("a"), "2\n");
    let changes = changed(collect(&lab, &work, base));
    assert_eq!(changes.files.len(), 2);
    assert!(!mark.exists(), "{}", std::fs::read_to_string(&mark).unwrap());
    // The trap itself works: git falls into it.
    lab.try_git(&work, &["add", "-A"]);
    assert!(mark.exists());
}

#[test]
fn odd_files_are_left_out_and_named() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("a", "1\n"), ("big", "small\n"), ("d/x", "1\n")]);
    fifo(&work.join("fifo"));
    fifo(&work.join("d/.gitignore"));
    std::os::unix::fs::symlink("/etc/passwd", work.join(".gitignore")).unwrap();
    std::fs::remove_file(work.join("a")).unwrap();
    fifo(&work.join("a"));
    // Sparse: a terabyte that takes no room.
    std::fs::File::create(work.join("huge")).unwrap().set_len(1 << 40).unwrap();
    std::fs::File::options().write(true).open(work.join("big")).unwrap().set_len(1 << 40).unwrap();
    write(&work.join("nested/.git/HEAD"), "ref: refs/heads/main\n");
    write(&work.join("nested/file"), "x\n");
    write(&work.join("sub/.GIT/config"), "x\n");
    write(&work.join("new"), "n\n");
    let mut collector = collector(&work, base);
    collector.limits.file_bytes = 1 << 20;
    let changes = changed(collector.run(&out(&lab)).unwrap());
    let skipped: Vec<_> = changes.skipped.iter().map(|skipped| skipped.path.as_str()).collect();
    assert_eq!(skipped, ["a", "big", "d/.gitignore", "fifo", "huge", "nested", "sub/.GIT"]);
    let files: Vec<_> = changes.files.iter().map(|file| file.path.as_str()).collect();
    // What could not be read stays as it was; the symlink is kept as a symlink and its target's text is not used.
    assert_eq!(files, [".gitignore", "new"]);
    let patch = std::fs::read_to_string(lab.path("out/changes.patch")).unwrap();
    assert!(patch.contains("new file mode 120000") && !patch.contains("root:"), "{patch}");
}

#[test]
fn a_symlinked_folder_is_a_symlink() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("d/x", "1\n")]);
    write(&lab.path("outside/x"), "secret\n");
    std::fs::remove_dir_all(work.join("d")).unwrap();
    std::os::unix::fs::symlink(lab.path("outside"), work.join("d")).unwrap();
    let changes = changed(collect(&lab, &work, base));
    let files: Vec<_> = changes.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(files, ["d", "d/x"]);
    assert!(!std::fs::read_to_string(lab.path("out/changes.patch")).unwrap().contains("secret"));
}

#[test]
fn damaged_objects_are_an_answer_and_no_panic() {
    let lab = Lab::new();
    let (_, work, base) = started(&lab, &[("a", "1\n"), ("b", "2\n")]);
    write(&work.join("a"), "2\n");
    lab.git(&work, &["commit", "-qam", "two"]);
    let objects = lab.git(&work, &["rev-parse", "--git-path", "objects"]);
    let mut files = Vec::new();
    let mut stack = vec![work.join(objects)];
    while let Some(folder) = stack.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { stack.push(path) } else { files.push(path) }
        }
    }
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        let mut permissions = std::fs::metadata(&file).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        std::fs::set_permissions(&file, permissions).unwrap();
        for damage in [Vec::new(), whole[..whole.len() / 2].to_vec(), vec![0xff; whole.len()]] {
            std::fs::write(&file, damage).unwrap();
            let result = collector(&work, base).run(&out(&lab));
            let sound = matches!(&result, Ok(Collected::Changed(changes)) if changes.file_count > 0);
            assert!(
                sound || matches!(result, Ok(Collected::Broken { .. }) | Err(_)),
                "{}: {result:?}",
                file.display()
            );
        }
        std::fs::write(&file, whole).unwrap();
    }
    assert_eq!(changed(collect(&lab, &work, base)).file_count, 1);
}
