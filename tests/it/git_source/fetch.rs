//! Fetching from a repository on disk.

use std::num::NonZeroU32;

use ostler::git::{Ancestry, Error, FetchRequest, LimitKind, Limits, Mirror, Movement, Remote};

use super::{NEVER, fetch, id, local, main_branch, mirror};
use crate::servers::repo::Repo;

const MAIN: &str = "refs/heads/main";

#[test]
fn the_first_fetch_is_shallow_and_later_ones_are_incremental() {
    let repo = Repo::with_readme();
    let second = repo.push(&[("a.yaml", "a: 1\n")], "second");
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());

    let first = fetch(&mirror, &remote).unwrap();
    assert_eq!(first.tips[MAIN].commit, id(&second));
    assert_eq!(first.tips[MAIN].movement, Movement::New);
    assert_eq!(first.objects, 4, "a commit, a tree and two blobs; no history");

    let third = repo.push(&[("b.yaml", "b: 1\n")], "third");
    let later = fetch(&mirror, &remote).unwrap();
    let movement = Movement::Moved { from: id(&second), ancestry: Ancestry::FastForward };
    assert_eq!(later.tips[MAIN].movement, movement);
    assert_eq!(later.objects, 3, "a commit, a tree and the new blob");
    assert_eq!(mirror.tip(MAIN).unwrap(), Some(id(&third)));
    let shallow = std::fs::read_to_string(mirror.path().join("shallow")).unwrap();
    assert_eq!(shallow.trim(), second, "the boundary did not move");
}

#[test]
fn nothing_new_is_no_change() {
    let repo = Repo::with_readme();
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    assert!(fetch(&mirror, &remote).unwrap().changed);
    let again = fetch(&mirror, &remote).unwrap();
    assert!(!again.changed);
    assert_eq!((again.objects, again.tips[MAIN].movement), (0, Movement::Same));
}

#[test]
fn a_file_url_and_a_checkout_are_remotes() {
    let repo = Repo::with_readme();
    let url = format!("file://{}", repo.bare().display());
    let by_url = Remote::builder(url.parse().unwrap()).build().unwrap();
    assert!(fetch(&mirror(&repo), &by_url).unwrap().changed);
    let commit = repo.commit(&[("a", "b")], "not pushed");
    let fetched = fetch(&mirror(&repo), &local(&repo.work())).unwrap();
    assert_eq!(fetched.tips[MAIN].commit, id(&commit));
}

#[test]
fn a_branch_that_is_new_to_the_mirror_starts_shallow_too() {
    let repo = Repo::with_readme();
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    fetch(&mirror, &remote).unwrap();
    repo.git(&["checkout", "--quiet", "--orphan", "ostler/results"]);
    for number in 0..10 {
        repo.push(&[("runs/claim.yaml", &format!("n: {number}\n"))], "a claim");
    }
    let both = main_branch().reference("refs/heads/ostler/results", true).unwrap();
    let fetched = mirror.fetch(&remote, &both, &Limits::default(), &NEVER).unwrap();
    assert_eq!(fetched.tips["refs/heads/ostler/results"].movement, Movement::New);
    assert_eq!(fetched.tips[MAIN].movement, Movement::Same);
    assert!(fetched.objects <= 5, "no history of ten commits: {}", fetched.objects);
}

#[test]
fn a_rewritten_branch_is_reported() {
    let repo = Repo::with_readme();
    let second = repo.push(&[("a", "1")], "second");
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    fetch(&mirror, &remote).unwrap();
    repo.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let other = repo.push(&[("a", "2")], "another second");
    let fetched = fetch(&mirror, &remote).unwrap();
    let movement = Movement::Moved { from: id(&second), ancestry: Ancestry::Rewritten };
    assert_eq!((fetched.tips[MAIN].commit, fetched.tips[MAIN].movement), (id(&other), movement));
}

#[test]
fn a_branch_that_is_wound_back_is_rewritten() {
    let repo = Repo::with_readme();
    let first = repo.git(&["rev-parse", "HEAD"]);
    let second = repo.push(&[("a", "1")], "second");
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    let all = main_branch().depth(None);
    mirror.fetch(&remote, &all, &Limits::default(), &NEVER).unwrap();
    repo.git(&["reset", "--quiet", "--hard", &first]);
    repo.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
    let fetched = fetch(&mirror, &remote).unwrap();
    let movement = Movement::Moved { from: id(&second), ancestry: Ancestry::Rewritten };
    assert_eq!(fetched.tips[MAIN].movement, movement);
}

#[test]
fn the_answer_behind_a_shallow_boundary_is_unknown_until_deepened() {
    let repo = Repo::with_readme();
    let first = repo.git(&["rev-parse", "HEAD"]);
    for number in 0..5 {
        repo.push(&[("a", &number.to_string())], "more");
    }
    let tip = repo.git(&["rev-parse", "HEAD"]);
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    fetch(&mirror, &remote).unwrap();
    let read = mirror.repository();
    assert_eq!(read.is_ancestor(id(&first), id(&tip)).unwrap(), None);
    assert_eq!(read.ancestry(id(&first), id(&tip)).unwrap(), Ancestry::Unknown);

    let two = NonZeroU32::new(2).unwrap();
    mirror.deepen(&remote, &main_branch(), two, &Limits::default(), &NEVER).unwrap();
    assert_eq!(read.is_ancestor(id(&first), id(&tip)).unwrap(), None);
    mirror.deepen(&remote, &main_branch(), NonZeroU32::new(10).unwrap(), &Limits::default(), &NEVER).unwrap();
    assert_eq!(read.is_ancestor(id(&first), id(&tip)).unwrap(), Some(true));
    assert_eq!(read.is_ancestor(id(&tip), id(&first)).unwrap(), Some(false));
}

#[test]
fn a_branch_that_was_deleted_is_an_error_and_the_mirror_stays() {
    let repo = Repo::with_readme();
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    let before = fetch(&mirror, &remote).unwrap().tips[MAIN].commit;
    repo.bare_git(&["update-ref", "-d", MAIN]);
    let error = fetch(&mirror, &remote).unwrap_err();
    assert!(matches!(&error, Error::NotFound { what, .. } if what == MAIN), "{error:?}");
    assert_eq!(mirror.tip(MAIN).unwrap(), Some(before));

    let optional = FetchRequest::new().reference(MAIN, true).unwrap();
    let fetched = mirror.fetch(&remote, &optional, &Limits::default(), &NEVER).unwrap();
    assert_eq!((fetched.changed, fetched.deleted[MAIN]), (true, before));
    assert_eq!(mirror.tip(MAIN).unwrap(), None);
}

#[test]
fn names_that_were_a_file_may_become_a_folder() {
    let repo = Repo::with_readme();
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    let all = FetchRequest::new().below("refs/heads").unwrap();
    mirror.fetch(&remote, &all, &Limits::default(), &NEVER).unwrap();
    repo.bare_git(&["branch", "-m", "main", "main/next"]);
    let fetched = mirror.fetch(&remote, &all, &Limits::default(), &NEVER).unwrap();
    assert!(fetched.tips.contains_key("refs/heads/main/next") && fetched.deleted.contains_key(MAIN));
}

#[test]
fn tags_and_commits_can_be_wanted() {
    let repo = Repo::with_readme();
    let first = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["tag", "-a", "-m", "one", "v1"]);
    repo.git(&["push", "--quiet", "origin", "v1"]);
    repo.push(&[("a", "1")], "second");
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    let tag = FetchRequest::new().tag("v1").unwrap();
    let fetched = mirror.fetch(&remote, &tag, &Limits::default(), &NEVER).unwrap();
    assert_eq!(fetched.tips["refs/tags/v1"].commit, id(&first));

    let pinned = Mirror::open_or_init(&repo.root().join("pinned")).unwrap();
    let wanted = FetchRequest::new().commit(id(&first));
    let fetched = pinned.fetch(&remote, &wanted, &Limits::default(), &NEVER).unwrap();
    assert_eq!(fetched.tips[&first].commit, id(&first));
    let again = pinned.fetch(&remote, &wanted, &Limits::default(), &NEVER).unwrap();
    assert_eq!((again.changed, again.objects), (false, 0));

    let nobody = FetchRequest::new().commit(id(&"1".repeat(40)));
    let error = pinned.fetch(&remote, &nobody, &Limits::default(), &NEVER).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
}

#[test]
fn listing_changes_nothing() {
    let repo = Repo::with_readme();
    let tip = repo.git(&["rev-parse", "HEAD"]);
    let listed = Mirror::list(&local(&repo.bare()), &main_branch(), &Limits::default(), &NEVER).unwrap();
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), [(MAIN.to_owned(), tip)]);
}

#[test]
fn a_place_without_a_repository_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = Mirror::open_or_init(&folder.path().join("mirror")).unwrap();
    let error = fetch(&mirror, &local(&folder.path().join("nowhere"))).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    let empty = Repo::new();
    let error = fetch(&mirror, &local(&empty.bare())).unwrap_err();
    assert!(matches!(&error, Error::NotFound { what, .. } if what == MAIN), "{error:?}");
}

#[test]
fn limits_end_a_fetch_and_leave_the_mirror_as_it_was() {
    let repo = Repo::with_readme();
    let noise = super::noise(200_000);
    repo.push(&[("noise", &noise)], "two megabytes");
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    let limited = |limits: Limits| mirror.fetch(&remote, &main_branch(), &limits, &NEVER).unwrap_err();
    for (limits, expected) in [
        (Limits { received_bytes: 100_000, ..Limits::default() }, LimitKind::ReceivedBytes),
        (Limits { pack_objects: 2, ..Limits::default() }, LimitKind::PackObjects),
        (Limits { object_bytes: 100_000, ..Limits::default() }, LimitKind::ObjectBytes),
    ] {
        let error = limited(limits);
        assert!(matches!(&error, Error::LimitExceeded { what, .. } if *what == expected), "{error:?}");
        assert_eq!(mirror.tip(MAIN).unwrap(), None);
        let packs = std::fs::read_dir(mirror.path().join("objects/pack")).unwrap().count();
        assert_eq!(packs, 0, "nothing half-written stays");
    }
    fetch(&mirror, &remote).unwrap();
}

#[test]
fn eighty_fetches_through_one_handle() {
    let repo = Repo::with_readme();
    let mirror = mirror(&repo);
    let remote = local(&repo.bare());
    for number in 0..80 {
        let commit = repo.push(&[("counter", &number.to_string())], "count");
        assert_eq!(fetch(&mirror, &remote).unwrap().tips[MAIN].commit, id(&commit));
    }
    let packs = std::fs::read_dir(mirror.path().join("objects/pack")).unwrap();
    let packs = packs.filter(|p| p.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack")).count();
    assert!(packs <= 50, "packs are put together: {packs}");
    crate::servers::repo::git(mirror.path(), &["fsck", "--strict", "--no-dangling"]);
    let tip = mirror.tip(MAIN).unwrap().unwrap();
    assert!(mirror.repository().commit(tip).unwrap().message.starts_with("count"));
}
