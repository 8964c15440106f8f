//! Git remembers what a state folder forgets.

use std::path::Path;

use ostler::kinds::{Phase, Reason};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

use super::{
    manifests::{GATE, SLEEP, commits},
    world::{PATIENCE, World},
};

#[test]
fn a_run_that_succeeded_does_not_start_again_when_the_state_is_thrown_away() {
    let world = World::new();
    world.push_run("once", &commits("WORK", "done"));
    let first = world.up_until_idle(&[]);
    assert_eq!(first.code, Some(0), "{}", first.text);
    let (tip, branch) = (world.ledger().tip(), world.code.bare_git(&["rev-parse", "ostler/default/once"]));

    world.forget_state();
    let again = world.up_until_idle(&[]);
    assert_eq!(again.code, Some(0), "outcomes in the ledger count: {}", again.text);
    assert!(again.text.contains("1 succeeded"), "{}", again.text);
    assert_eq!(world.ledger().tip(), tip);
    assert_eq!(world.code.bare_git(&["rev-parse", "ostler/default/once"]), branch);
    assert_eq!(world.code_file("once", "STARTS").lines().count(), 1);
}

/// The processes of a place: its sidecar and the agent's PID 1, as handles that outlive them.
fn processes(place: &Path) -> Vec<rustix::fd::OwnedFd> {
    let state: Value = serde_json::from_slice(&std::fs::read(place.join("state.json")).unwrap()).unwrap();
    let pid =
        |name: &str| Pid::from_raw(i32::try_from(state[name]["pid"].as_i64().unwrap()).unwrap()).unwrap();
    ["sidecar", "shim"].map(|name| pidfd_open(pid(name), PidfdFlags::empty()).unwrap()).into()
}

/// Waits until a process has ended.
fn ended(process: &rustix::fd::OwnedFd) -> bool {
    let time = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&time)).unwrap() == 1
}

#[test]
fn a_run_whose_state_is_thrown_away_while_it_works_is_lost_and_does_not_start_again() {
    let world = World::new();
    world.push_run("asleep", &format!("{GATE}{SLEEP}"));
    let up = world.up();
    let run = world.wait_run("asleep", "its agent works", |status| status.phase == Some(Phase::Running));
    world.open_gate(&run);
    let tip = world.ledger().tip();
    let processes = processes(&world.place(&run));
    up.kill();
    world.forget_state();
    assert!(processes.iter().all(ended), "the old agent ends with its folder");

    let again = world.up_until_idle(&[]);
    assert_eq!(again.code, Some(1), "{}", again.text);
    let status = world.stored_status("asleep");
    assert_eq!((status.phase, status.reason), (Some(Phase::Lost), Some(Reason::ClaimedElsewhere)));
    assert!(status.start_time.is_none() && status.place.is_none(), "nothing starts");
    let recorded = status.conditions.iter().find(|condition| condition.type_ == "ResultRecorded").unwrap();
    assert_eq!((recorded.status.as_str(), recorded.reason.as_str()), ("False", "ClaimedElsewhere"));
    assert_eq!(world.ledger().tip(), tip, "only the holder writes");
    assert_eq!(world.code_branches(), ["main"]);
    assert!(world.ledger().claim("asleep").is_some() && world.ledger().result("asleep").is_none());
}
