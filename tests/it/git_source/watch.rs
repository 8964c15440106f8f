//! Noticing changes of a local repository.

use std::path::Path;
use std::time::Duration;

use ostler::git::Watch;

use crate::servers::repo::Repo;

/// Long enough for any machine; a tick that never comes fails the test.
async fn ticks(watch: &mut Watch) {
    tokio::time::timeout(Duration::from_mins(1), watch.tick()).await.expect("a tick");
}

/// Waits until a watch has nothing left to tell, so that the next tick is of what comes next.
async fn settle(watch: &mut Watch) {
    while tokio::time::timeout(Duration::from_millis(300), watch.tick()).await.is_ok() {}
}

async fn notices(watched: &Path, change: impl FnOnce()) {
    let mut watch = Watch::start(watched).unwrap();
    settle(&mut watch).await;
    change();
    ticks(&mut watch).await;
}

#[tokio::test]
async fn a_push_to_a_bare_repository_and_a_commit_in_a_checkout() {
    let repo = Repo::with_readme();
    notices(&repo.bare(), || drop(repo.push(&[("a", "1")], "second"))).await;
    notices(&repo.work(), || drop(repo.commit(&[("a", "2")], "third"))).await;
    notices(&repo.work(), || drop(repo.git(&["branch", "team/new"]))).await;
    notices(&repo.work(), || drop(repo.git(&["checkout", "--quiet", "-b", "other"]))).await;
    notices(&repo.work(), || drop(repo.git(&["pack-refs", "--all"]))).await;
}

#[tokio::test]
async fn a_linked_worktree_sees_its_own_head_and_the_shared_branches() {
    let repo = Repo::with_readme();
    repo.git(&["worktree", "add", "--quiet", "-b", "linked", "../linked"]);
    let linked = repo.root().join("linked");
    notices(&linked, || drop(repo.commit(&[("a", "1")], "on main"))).await;
    notices(&linked, || drop(crate::servers::repo::git(&linked, &["checkout", "--quiet", "--detach"]))).await;
}

#[tokio::test]
async fn a_storm_nobody_heard_is_told_and_reading_is_no_news() {
    let repo = Repo::with_readme();
    let mut watch = Watch::start(&repo.bare()).unwrap();
    for number in 0..30 {
        repo.bare_git(&["branch", &format!("b{number}"), "main"]);
    }
    // Nobody listened during the storm: what it was is told all the same.
    ticks(&mut watch).await;
    // One that begins after the storm cannot be told of its tail.
    let mut watch = Watch::start(&repo.bare()).unwrap();
    repo.bare_git(&["for-each-ref"]);
    let read = ostler::git::Repository::open(&repo.bare()).unwrap();
    read.resolve("main").unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(500), watch.tick()).await;
    assert!(quiet.is_err(), "reading is no news");
    repo.bare_git(&["branch", "after", "main"]);
    ticks(&mut watch).await;
}

#[tokio::test]
async fn a_repository_that_was_replaced_is_watched_again() {
    let repo = Repo::with_readme();
    let mut watch = Watch::start(&repo.bare()).unwrap();
    settle(&mut watch).await;
    std::fs::rename(repo.bare(), repo.root().join("old.git")).unwrap();
    crate::servers::repo::git(
        repo.root(),
        &["init", "--quiet", "--bare", "--initial-branch=main", "origin.git"],
    );
    ticks(&mut watch).await;
    settle(&mut watch).await;
    repo.git(&["push", "--quiet", "origin", "HEAD"]);
    ticks(&mut watch).await;
}

#[test]
fn a_folder_without_a_repository_cannot_be_watched() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Watch::start(folder.path()).is_err());
}
