//! `ostler up` may be killed at any moment of a run.

use std::time::{Duration, Instant};

use ostler::kinds::Phase;
use serde_json::Value;

use super::{
    manifests::{commits, run},
    world::World,
};

/// How many moments.
const MOMENTS: u64 = 20;
/// How many worlds share the work.
const WORLDS: u64 = 2;

/// A number that looks random, from a seed (`SplitMix64`).
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A short run with committed and uncommitted work.
fn script() -> String {
    format!("{}sleep 0.2\necho half >DRAFT\n", commits("WORK", "done"))
}

/// A result without what differs from run to run.
fn masked(mut result: Value) -> Value {
    let fields = result.as_object_mut().unwrap();
    for field in ["run", "uid", "digest", "configCommit", "startedAt", "endedAt", "recordedAt", "startup"] {
        assert!(fields.shift_remove(field).is_some(), "{field} is missing");
    }
    for (pointer, fields) in
        [("/changes", &["head"][..]), ("/push", &["branch", "message"]), ("/bulk", &["ref", "files"])]
    {
        let part = result.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap();
        part.retain(|name, _| !fields.contains(&name.as_str()));
    }
    result
}

/// Pushes a run, kills `ostler up` that long after its start, and lets the next one finish; gives the result.
fn killed_after(world: &World, name: &str, moment: Option<Duration>) -> Value {
    world.push(&[(&format!("runs/{name}.yaml"), &run(name, &script()))], name);
    if let Some(moment) = moment {
        let up = world.up_at_once();
        // The moment is what is tested, not a way to wait.
        std::thread::sleep(moment);
        up.kill();
    }
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(0), "{name}, killed after {moment:?}: {}", ended.text);
    let status = world.stored_status(name);
    assert_eq!(status.phase, Some(Phase::Succeeded), "{name}, killed after {moment:?}");
    let ledger = world.ledger();
    for file in ["claim.yaml", "result.yaml"] {
        let path = ledger.path(name, file).unwrap();
        assert_eq!(ledger.commits_of(&path).len(), 1, "{path}, killed after {moment:?}");
    }
    let starts = world.code_file(name, "STARTS");
    assert_eq!(starts.lines().count(), 1, "{name}, killed after {moment:?}, started once");
    assert_eq!(world.code_file(name, "DRAFT"), "half");
    ledger.result(name).unwrap()
}

/// Kills at the moments of some seeds.
fn killed(seeds: impl Iterator<Item = u64>) {
    let world = World::new();
    let begin = Instant::now();
    let whole = masked(killed_after(&world, "whole", None));
    let time = begin.elapsed();
    for seed in seeds {
        let part = u32::try_from(random(seed) % 1000).unwrap();
        let moment = time * part / 1000;
        println!("seed {seed}: killed after {moment:?} of {time:?}");
        let result = killed_after(&world, &format!("seed-{seed}"), Some(moment));
        assert_eq!(masked(result), whole, "seed {seed}: killed after {moment:?} of {time:?}");
    }
    world.ledger().assert_signed();
}

#[test]
fn killing_up_at_twenty_moments_of_a_run_changes_nothing() {
    let test = std::thread::current();
    let name = test.name().unwrap();
    std::thread::scope(|scope| {
        for first in 0..WORLDS {
            // by its name a world knows which scenario it belongs to
            let thread = std::thread::Builder::new().name(name.to_owned());
            let worlds = (first..MOMENTS).step_by(usize::try_from(WORLDS).unwrap());
            thread.spawn_scoped(scope, move || killed(worlds)).unwrap();
        }
    });
}

#[test]
fn an_agent_goes_on_without_up_and_the_next_one_adopts_it() {
    let world = World::new();
    world.push_run("long", &format!("{}{}", super::manifests::GATE, script()));
    let up = world.up();
    let run = world.wait_run("long", "its agent works", |status| status.phase == Some(Phase::Running));
    world.at_gate(&run);
    let place = run.status.unwrap().place.unwrap();
    up.kill();
    let run = world.stored::<ostler::kinds::HarnessRun>("long").unwrap();
    world.open_gate(&run);
    super::world::eventually("it worked to its end with no up there", || {
        let state = std::fs::read(world.place(&run).join("state.json")).unwrap();
        serde_json::from_slice::<Value>(&state).unwrap()["stage"] == "Delivering"
    });
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_eq!(world.stored_status("long").place.unwrap(), place, "it is the same place");
    assert_eq!(world.code_file("long", "STARTS").lines().count(), 1);
    super::world::eventually("nothing is left of it", || !world.place(&run).exists());
}
