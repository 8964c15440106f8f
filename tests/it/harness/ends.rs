//! How agents end.

use std::time::Duration;

use ostler::{
    kinds::Reason,
    ports::{
        Workloads,
        workloads::{Limit, Stage, StopReason},
    },
    report::End,
};

use super::world::{World, appears, command, nap, nothing_left, shell};

#[tokio::test]
async fn a_command_runs_and_its_report_is_delivered() {
    let world = World::new();
    let spec = shell("echo out; echo err >&2; pwd; id -u; exit 0");
    let delivery = world.run(&spec).await;
    assert_eq!(delivery.report.end, End::Exited { code: 0 });
    let output = delivery.output();
    for line in ["out", "err", "/workspace", "1000"] {
        assert!(output.lines().any(|found| found == line), "{line} in {output}");
    }
    assert!(delivery.report.egress_proof.unwrap().contains("no interface but lo"));
    assert!(delivery.report.startup.first_output_ms.is_some());
    assert_eq!(delivery.path, "/api/v1/runs/team/run/result");
    assert_eq!(delivery.headers["authorization"], format!("Bearer token-of-{}", spec.run.uid));
    assert_eq!(delivery.headers["ostler-run-uid"], spec.run.uid.as_str());
    assert_eq!(delivery.headers["ostler-report-digest"], delivery.digest);
    assert_eq!(delivery.headers["content-type"], "application/x-tar");
}

#[tokio::test]
async fn exit_codes_and_signals_are_what_pid_1_saw() {
    let world = World::new();
    for (script, code) in [("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(world.run(&shell(script)).await.report.end, End::Exited { code }, "{script}");
    }
    let missing = world.run(&command(&["no-such-program"])).await;
    assert_eq!(missing.report.end, End::Exited { code: 127 });
    assert!(missing.output().contains("no-such-program"));
    assert_eq!(world.run(&command(&["/etc/passwd"])).await.report.end, End::Exited { code: 126 });
}

#[tokio::test]
async fn standard_input_is_empty() {
    let world = World::new();
    let delivery = world.run(&shell("cat; readlink /proc/self/fd/0")).await;
    assert_eq!(delivery.output(), "/dev/null\n");
}

#[tokio::test]
async fn a_stop_gives_time_to_clean_up() {
    let world = World::new();
    let spec = shell("trap 'echo cleaned; exit 5' TERM; touch started; while :; do sleep 0.05; done");
    world.workloads.ensure(&spec).await.unwrap();
    appears(&world.place(&spec.run.uid).join("workspace/started")).await;
    world.workloads.stop(&spec.run.uid, StopReason::StopRequested).await.unwrap();
    let delivery = world.delivered(1).await.remove(0);
    assert_eq!(delivery.report.end, End::Stopped { by: StopReason::StopRequested, code: 5 });
    assert!(delivery.output().contains("cleaned\n"), "{}", delivery.output());
    world.reaches(&spec.run.uid, Stage::Released).await;
    world.workloads.stop(&spec.run.uid, StopReason::Removed).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_ignores_sigterm_is_killed_after_its_grace() {
    let world = World::new();
    let mut spec = shell("trap '' TERM; touch started; while :; do sleep 0.05; done");
    spec.grace = Duration::from_secs(1);
    world.workloads.ensure(&spec).await.unwrap();
    appears(&world.place(&spec.run.uid).join("workspace/started")).await;
    world.workloads.stop(&spec.run.uid, StopReason::Removed).await.unwrap();
    let delivery = world.delivered(1).await.remove(0);
    assert_eq!(delivery.report.end, End::Stopped { by: StopReason::Removed, code: 137 });
}

#[tokio::test]
async fn a_time_limit_ends_the_agent() {
    let world = World::new();
    let mut spec = shell("sleep 1000");
    spec.timeout = Duration::from_secs(1);
    assert_eq!(world.run(&spec).await.report.end, End::TimedOut { code: 143 });
}

#[tokio::test]
async fn what_an_agent_leaves_behind_is_killed() {
    let world = World::new();
    // In sessions of their own, out of reach of any signal to the agent's process group.
    let nap = nap();
    let script = format!(
        "for name in a b; do setsid sh -c \"touch $name; exec sleep {nap}\" & done; \
         until [ -e a ] && [ -e b ]; do sleep 0.05; done; exit 0"
    );
    let delivery = world.run(&shell(&script)).await;
    assert_eq!(delivery.report.end, End::Exited { code: 0 });
    assert!(
        delivery.report.notes.iter().any(|note| note.starts_with("2 processes outlived")),
        "{delivery:?}"
    );
    nothing_left(&nap).await;
}

fn authored(value: u64) -> Limit {
    Limit { value, authored: true }
}

async fn passes_limit(spec: ostler::ports::workloads::PlaceSpec, expected: Reason) {
    let world = World::new();
    match world.run(&spec).await.report.end {
        End::Ended { reason, message, .. } => {
            assert_eq!(reason, expected);
            assert!(message.contains("the limit is"), "{message}");
        }
        end => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn too_much_memory_has_its_reason() {
    // What tail may have to show stays in its memory, for as long as nobody reads what it shows.
    let mut spec = shell("head -c 300000000 /dev/zero | tail -c 300000000 | sleep 1000");
    spec.limits.memory_bytes = authored(100 << 20);
    passes_limit(spec, Reason::OutOfMemory).await;
}

#[tokio::test]
async fn too_much_disk_has_its_reason() {
    let mut spec =
        shell("for n in 1 2 3 4 5 6 7 8; do head -c 10000000 /dev/zero >/tmp/$n; done; sleep 1000");
    spec.limits.disk_bytes = authored(40 << 20);
    passes_limit(spec, Reason::DiskLimit).await;
    let mut spec = shell("head -c 80000000 /dev/zero >big; sleep 1000");
    spec.limits.disk_bytes = authored(40 << 20);
    passes_limit(spec, Reason::DiskLimit).await;
}

#[tokio::test]
async fn too_many_processes_have_their_reason() {
    let mut spec = shell("i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; wait");
    spec.limits.processes = authored(30);
    passes_limit(spec, Reason::ProcessLimit).await;
}

#[tokio::test]
async fn a_limit_that_cannot_be_enforced_fails_the_run_or_is_said() {
    let spec = |authored| {
        let mut spec = shell("touch started");
        spec.limits.cpu_millis = Limit { value: 500, authored };
        spec
    };
    let world = World::new();
    let refused = spec(true);
    match world.run(&refused).await.report.end {
        End::NotStarted { reason, .. } => assert_eq!(reason, Reason::LimitNotEnforceable),
        end => panic!("{end:?}"),
    }
    assert!(!world.place(&refused.run.uid).join("workspace/started").exists());
    assert_eq!(world.run(&spec(false)).await.report.limits_not_enforced, ["cpu"]);
    let lenient = World::with(|options| options.allow_unenforced = true);
    assert_eq!(lenient.run(&spec(true)).await.report.end, End::Exited { code: 0 });
}

#[tokio::test]
async fn without_a_controller_the_agent_ends_and_the_result_stays() {
    // Longer than the pauses of an adapter that looks for the sidecar that it has just started.
    let mut world = World::with(|options| options.patience = Duration::from_secs(10));
    world.stop_recorder();
    let spec = shell("touch started; sleep 1000");
    world.workloads.ensure(&spec).await.unwrap();
    let place = world.place(&spec.run.uid);
    appears(&place.join("workspace/started")).await;
    world.forsake();
    appears(&place.join("outbox/result.tar")).await;
    world.start_recorder();
    world.restart();
    let delivery = world.delivered(1).await.remove(0);
    assert!(
        matches!(delivery.report.end, End::Ended { reason: Reason::ControllerGone, .. }),
        "{:?}",
        delivery.report.end
    );
}
