//! A ledger that cannot be written, and code repositories that are not allowed.

use std::os::unix::fs::PermissionsExt;

use ostler::kinds::{Phase, Reason};

use super::{manifests::commits, world::World};
use crate::servers::repo::git;

/// A world whose config repository takes no push to the ledger's branch.
fn closed() -> World {
    let world = World::new();
    world.push_run("hello", &commits("WORK", "done"));
    let hook = world.config.bare().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'this branch is protected' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    world
}

#[test]
fn a_run_whose_ledger_takes_no_push_is_held_and_told_what_to_do() {
    let mut world = closed();
    let up = world.up();
    let held = world.wait_run("hello", "it is held", |status| {
        (status.phase, status.reason) == (Some(Phase::Held), Some(Reason::LedgerUnavailable))
    });
    let message = held.status.unwrap().message.unwrap();
    assert!(message.contains("--claim cluster") && message.contains("--ledger-url"), "{message}");
    assert_eq!(up.stop().code, Some(0));
    assert_eq!(world.code_branches(), ["main"], "nothing started");

    // Another repository for the ledger is one way out.
    git(&world.path(""), &["init", "--quiet", "--bare", "ledger.git"]);
    world.ledger = world.path("ledger.git");
    let url = world.ledger.display().to_string();
    let ended = world.up_until_idle(&["--ledger-url", &url]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_eq!(world.ledger().result("hello").unwrap()["outcome"], "Succeeded");
    world.ledger().assert_signed();
    assert_eq!(world.code_file("hello", "STARTS").lines().count(), 1);
}

#[test]
fn claims_of_the_state_folder_need_no_push() {
    let world = closed();
    let up = world.up_with(&["--claim", "cluster"]);
    world.wait_run("hello", "its agent worked", |status| {
        matches!(status.phase, Some(Phase::Collecting | Phase::Succeeded))
    });
    let run = world.wait_run("hello", "its code is pushed", |_| world.code_branches().len() == 2);
    assert!(run.status.unwrap().claim.unwrap().commit.is_none(), "there is no commit that claims it");
    assert_eq!(world.code_file("hello", "STARTS").lines().count(), 1);
    drop(up);
}

#[test]
fn a_run_claimed_by_the_state_folder_alone_is_recorded_without_a_claim() {
    let world = World::new();
    world.push_run("hello", &commits("WORK", "done"));
    let ended = world.up_until_idle(&["--claim", "cluster"]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let ledger = world.ledger();
    assert_eq!(ledger.result("hello").unwrap()["outcome"], "Succeeded");
    assert!(ledger.claim("hello").is_none());
    ledger.assert_signed();
}

#[test]
fn code_repositories_are_those_of_the_flag() {
    let world = World::new();
    world.push_run("hello", &commits("WORK", "done"));
    let invalid = world.up_until_idle(&["--allowed-repositories", "https://git.example.com/a*"]);
    assert_eq!(invalid.code, Some(2), "{}", invalid.text);
    assert!(invalid.text.contains("--allowed-repositories is refused"), "{}", invalid.text);
    let refused = world.up_until_idle(&["--allowed-repositories", "https://git.example.com/*,/srv/git/*"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("RepositoryNotAllowed"), "{}", refused.text);
    assert_eq!(world.code_branches(), ["main"], "nothing started");
    let pattern = format!("{}/*", world.code.bare().parent().unwrap().display());
    let ended = world.up_until_idle(&["--allowed-repositories", &pattern]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_eq!(world.code_file("hello", "WORK"), "done");
}
