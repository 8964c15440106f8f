//! What a run waits for: its turn, its session, its agent, a secret.

use jiff::Timestamp;
use ostler::kinds::{HarnessRun, Phase, Reason};
use serde_json::json;

use super::{
    manifests::{GATE, agent, commits, run, run_with, secret, session, session_with},
    world::World,
};

fn url(world: &World) -> String {
    world.code.bare().display().to_string()
}

/// When the agent of a recorded run worked.
fn time(world: &World, run: &str) -> (Timestamp, Timestamp) {
    let result = world.ledger().result(run).unwrap();
    let of = |field: &str| result[field].as_str().unwrap().parse().unwrap();
    (of("startedAt"), of("endedAt"))
}

#[test]
fn runs_of_a_session_work_one_after_another() {
    let world = World::new();
    let names = ["one", "two", "three"];
    let runs = names.map(|name| (format!("runs/{name}.yaml"), run(name, &commits("WORK", name))));
    world.push(&runs.each_ref().map(|(path, text)| (path.as_str(), text.as_str())), "three runs");
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let mut times = names.map(|name| time(&world, name));
    times.sort();
    assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{times:?}");
    for name in names {
        assert_eq!(world.code_file(name, "WORK"), name);
        assert_eq!(world.code_file(name, "STARTS").lines().count(), 1);
    }
}

#[test]
fn a_session_that_allows_two_runs_at_once_runs_two_and_no_third() {
    let world = World::new();
    let session = session_with(&url(&world), &json!({"maxConcurrentRuns": 2}));
    let runs = ["one", "two", "three"].map(|name| (format!("runs/{name}.yaml"), run(name, GATE)));
    let mut files = vec![("session.yaml", session.as_str())];
    files.extend(runs.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    world.push(&files, "three runs");
    let up = world.up();
    let phase = |name: &str| {
        let stand = world.wait_run(name, "it works or waits for its turn", |status| {
            status.phase == Some(Phase::Running) || status.reason == Some(Reason::SessionBusy)
        });
        (stand.status.as_ref().unwrap().phase.unwrap(), stand)
    };
    let stands = ["one", "two", "three"].map(phase);
    let (working, waiting): (Vec<_>, Vec<_>) = stands.iter().partition(|(phase, _)| *phase == Phase::Running);
    assert_eq!((working.len(), waiting.len()), (2, 1));
    // Both stand before their gates at the same time: each would wait for ever for the other's end.
    for (_, run) in &working {
        world.at_gate(run);
    }
    for (_, run) in &working {
        world.open_gate(run);
    }
    let name = waiting[0].1.metadata.name.clone().unwrap();
    let last = world.wait_run(&name, "its turn comes", |status| status.phase == Some(Phase::Running));
    world.open_gate(&last);
    for name in ["one", "two", "three"] {
        world.wait_run(name, "it succeeds", |status| status.phase == Some(Phase::Succeeded));
    }
    assert_eq!(up.stop().code, Some(0));
}

#[test]
fn a_run_of_a_suspended_session_waits_until_the_session_goes_on() {
    let world = World::new();
    let suspended = session_with(&url(&world), &json!({"suspend": true}));
    world.push(
        &[("session.yaml", &suspended), ("runs/later.yaml", &run("later", &commits("WORK", "done")))],
        "wait",
    );
    let waits = world.up_until_idle(&[]);
    assert_eq!(waits.code, Some(1), "{}", waits.text);
    assert!(
        waits.text.contains("default/later: waits for a commit or a person (Suspended)"),
        "{}",
        waits.text
    );
    assert_eq!(world.stored_status("later").phase, Some(Phase::Pending));
    world.push(&[("session.yaml", &session(&url(&world)))], "go on");
    let done = world.up_until_idle(&[]);
    assert_eq!(done.code, Some(0), "{}", done.text);
    assert_eq!(world.code_file("later", "WORK"), "done");
}

#[test]
fn a_run_whose_agent_nobody_knows_waits_and_that_is_no_success() {
    let world = World::new();
    let spec = json!({"agentRef": {"name": "nobody"}});
    world.push(&[("runs/idle.yaml", &run_with("idle", "true\n", &spec))], "an unknown agent");
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(
        ended.text.contains("default/idle: waits for a commit or a person (AgentNotFound)"),
        "{}",
        ended.text
    );
    let status = world.stored_status("idle");
    assert_eq!((status.phase, status.reason), (Some(Phase::Pending), Some(Reason::AgentNotFound)));
    assert!(status.message.unwrap().contains("nobody"));
    assert!(status.claim.is_none(), "nothing is claimed");
}

#[test]
fn a_run_waits_for_its_secret_and_goes_on_when_it_is_there() {
    let mut world = World::new();
    world.target.extend(["--secrets".into(), world.path("secrets").into()]);
    let spec =
        json!({"env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "late", "key": "key"}}}]});
    world.push(
        &[
            ("agents/needy.yaml", &agent("needy", &spec)),
            (
                "runs/needy.yaml",
                &run_with(
                    "needy",
                    "printf '%s' \"$TOKEN\" | wc -c >LENGTH\n",
                    &json!({"agentRef": {"name": "needy"}}),
                ),
            ),
        ],
        "a run that needs a secret",
    );
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(
        ended.text.contains("default/needy: waits for a commit or a person (SecretNotFound)"),
        "{}",
        ended.text
    );
    let up = world.up();
    let waiting: HarnessRun = world.wait_run("needy", "it waits for its secret", |status| {
        (status.phase, status.reason) == (Some(Phase::Pending), Some(Reason::SecretNotFound))
    });
    assert!(waiting.status.unwrap().message.unwrap().contains("late"));
    world.write("secrets/late.yaml", &secret("late", "env", None, &json!({"key": "12345"})));
    world.wait_run("needy", "it succeeds", |status| status.phase == Some(Phase::Succeeded));
    assert_eq!(world.code_file("needy", "LENGTH").trim(), "5");
    assert_eq!(up.stop().code, Some(0));
}
