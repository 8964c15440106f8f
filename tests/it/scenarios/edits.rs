//! What later commits do to a run: edit, stop, remove, and what time does.

use ostler::kinds::{ConfigRepository, HarnessRun, Phase, Reason};
use serde_json::json;

use super::{
    manifests::{GATE, SLEEP, commits, run, run_with, session},
    world::World,
};

/// The name of the ConfigRepository that `up` makes.
const REPOSITORY: &str = "config";

/// Waits until a commit is in force.
fn applied(world: &World, commit: &str) -> ConfigRepository {
    let in_force = |repository: Option<&ConfigRepository>| {
        let status = repository.and_then(|repository| repository.status.as_ref());
        status.and_then(|status| status.last_applied.as_ref()).is_some_and(|applied| applied.commit == commit)
    };
    world.wait(REPOSITORY, "the commit is in force", in_force).unwrap()
}

#[test]
fn an_edit_updates_a_pending_run_but_of_a_finished_one_it_is_a_diagnostic() {
    let world = World::new();
    world.remove("session.yaml");
    world.push_run("early", &commits("WORK", "first"));
    let up = world.up();
    let pending = world.wait_run("early", "it waits for its session", |status| {
        (status.phase, status.reason) == (Some(Phase::Pending), Some(Reason::SessionNotFound))
    });

    world.push_run("early", &commits("WORK", "second"));
    let edited = world.wait::<HarnessRun>("early", "its prompt is the new one", |run| {
        let prompt = run.and_then(|run| run.spec.task.as_ref()).and_then(|task| task.prompt.as_deref());
        prompt.is_some_and(|prompt| prompt.contains("second"))
    });
    assert_eq!(edited.unwrap().metadata.uid, pending.metadata.uid, "it is the same run");
    world.push(&[("session.yaml", &session(&world.code.bare().display().to_string()))], "the session");
    world.wait_run("early", "it succeeds", |status| {
        status.phase == Some(Phase::Succeeded) && status.result.is_some()
    });
    assert_eq!(world.code_file("early", "WORK"), "second");
    let (tip, branch) = (world.ledger().tip(), world.code.bare_git(&["rev-parse", "ostler/default/early"]));

    let late = world.push_run("early", &commits("WORK", "third"));
    let repository = applied(&world, &late);
    let told = repository.status.unwrap().diagnostics;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].path.as_str(), told[0].code.as_str()), ("runs/early.yaml", "SpecChangedAfterRun"));
    assert!(told[0].line > 0 && told[0].column > 0);
    assert_eq!(up.stop().code, Some(0));

    let status = world.stored_status("early");
    assert_eq!(status.phase, Some(Phase::Succeeded), "a terminal phase stays");
    let again = world.up_until_idle(&[]);
    assert!(again.text.contains("1 succeeded"), "{}", again.text);
    assert_eq!(world.ledger().tip(), tip, "nothing was claimed or recorded again");
    assert_eq!(world.code.bare_git(&["rev-parse", "ostler/default/early"]), branch);
    assert_eq!(world.code_file("early", "STARTS").lines().count(), 1);
}

/// Pushes a run, waits until its agent is where the gate was, and gives the run.
fn running(world: &World, name: &str, script: &str) -> HarnessRun {
    world.push_run(name, script);
    let run = world.wait_run(name, "its agent works", |status| status.phase == Some(Phase::Running));
    world.open_gate(&run);
    run
}

/// A script with committed and uncommitted work before it works for ever.
fn half_done(rest: &str) -> String {
    format!("{GATE}{}echo half >DRAFT\necho at work >/tmp/at-work\n{rest}", commits("WORK", "committed"))
}

fn works(world: &World, run: &HarnessRun) {
    super::world::eventually("the agent works", || world.place(run).join("tmp/at-work").exists());
}

/// Its work so far is in the code branch, and its result says how it ended.
fn kept(world: &World, name: &str, reason: &str) {
    let result = world.ledger().result(name).unwrap();
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("Stopped"), &json!(reason)));
    assert_eq!(world.code_file(name, "WORK"), "committed");
    assert_eq!(world.code_file(name, "DRAFT"), "half", "uncommitted work is the last commit");
    assert_eq!(world.code_file(name, "STARTS").lines().count(), 1);
    world.ledger().assert_signed();
}

fn stops(rest: &str) {
    let world = World::new();
    let up = world.up();
    let script = half_done(rest);
    let started = running(&world, "long", &script);
    works(&world, &started);
    world.push(&[("runs/long.yaml", &run_with("long", &script, &json!({"stop": true})))], "stop it");
    let stopped = world.wait_run("long", "it is stopped", |status| {
        status.phase == Some(Phase::Stopped) && status.result.is_some()
    });
    assert_eq!(stopped.metadata.uid, started.metadata.uid);
    kept(&world, "long", "StopRequested");

    // Taking it back does nothing.
    let taken_back = world.push(&[("runs/long.yaml", &run("long", &script))], "go on");
    applied(&world, &taken_back);
    assert_eq!(up.stop().code, Some(0));
    assert_eq!(world.stored_status("long").phase, Some(Phase::Stopped));
    let said = super::drift::verbs(&world, "HarnessRun default/long");
    assert_eq!(said.iter().filter(|verb| *verb == "stop").count(), 1, "{said:?}");
    let again = world.up_until_idle(&[]);
    assert_eq!(again.code, Some(1), "a stopped run did not succeed: {}", again.text);
    assert_eq!(world.code_file("long", "STARTS").lines().count(), 1);
}

#[test]
fn a_commit_stops_a_running_agent_and_its_work_is_kept() {
    stops(SLEEP);
}

#[test]
fn an_agent_that_ignores_the_request_is_killed_and_its_work_is_kept() {
    stops("trap '' TERM\nwhile :; do sleep 1; done\n");
}

#[test]
fn removing_the_file_of_a_running_agent_stops_records_and_removes() {
    let world = World::new();
    let up = world.up();
    let started = running(&world, "long", &half_done(SLEEP));
    works(&world, &started);
    world.remove("runs/long.yaml");
    world.wait::<HarnessRun>("long", "its object goes", |run| run.is_none());
    kept(&world, "long", "Removed");
    super::world::eventually("its place goes", || !world.place(&started).exists());
    assert_eq!(up.stop().code, Some(0));
    let again = world.up_until_idle(&[]);
    assert_eq!(again.code, Some(0), "there is no run any more: {}", again.text);
}

#[test]
fn time_removes_a_finished_run_and_a_sync_does_not_bring_it_back() {
    let world = World::new();
    let lives = |name: &str, seconds: u32| {
        let spec = json!({"ttlSecondsAfterFinished": seconds});
        (format!("runs/{name}.yaml"), run_with(name, &commits("WORK", "done"), &spec))
    };
    let (at_once, soon) = (lives("at-once", 0), lives("soon", 1));
    world.push(&[(&at_once.0, &at_once.1), (&soon.0, &soon.1)], "two short-lived runs");
    let up = world.up();
    for name in ["at-once", "soon"] {
        let mut was_there = false;
        world.wait::<HarnessRun>(name, "it comes and goes", |run| {
            was_there |= run.is_some();
            run.is_none() && (was_there || world_has_result(&world, name))
        });
        assert_eq!(world.ledger().result(name).unwrap()["outcome"], "Succeeded");
        assert_eq!(world.code_file(name, "STARTS").lines().count(), 1);
    }
    let tip = world.ledger().tip();
    let other =
        world.push(&[("agents/other.yaml", &super::manifests::agent("other", &json!({})))], "unrelated");
    applied(&world, &other);
    let ended = up.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    for name in ["at-once", "soon"] {
        assert!(world.stored::<HarnessRun>(name).is_none(), "{name} is back");
    }
    let again = world.up_until_idle(&[]);
    assert_eq!(again.code, Some(0), "{}", again.text);
    assert!(again.text.contains("2 succeeded"), "the ledger counts: {}", again.text);
    assert_eq!(world.ledger().tip(), tip);
}

/// True once the ledger has a result, before which the signing key may not even exist.
fn world_has_result(world: &World, name: &str) -> bool {
    world.config.bare_git(&["for-each-ref", "refs/heads/ostler"]).lines().count() == 1
        && world.ledger().result(name).is_some()
}
