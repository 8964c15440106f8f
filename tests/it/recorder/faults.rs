//! Any write of the store may fail, done or not: the end is the same.

use ostler::{kinds::condition, report::Receipt};

use super::stage::{Stage, has_result, is_claimed};
use crate::faults::{Fault, Faulty};

#[tokio::test]
async fn every_write_may_fail_and_the_end_is_the_same() {
    for fault in [Fault::Before, Fault::After] {
        for nth in 1..=5 {
            let stage = Stage::new().await;
            let faulty = Faulty::new(stage.store.clone());
            faulty.fail_write(nth, fault);
            let running = stage.start_on(faulty);
            let run = stage.claiming("fix").await;
            // The sidecar asks again until it is told that the result is recorded.
            let mut asked = 0;
            while running.handle.deliver(stage.output(&run)).await != Receipt::Recorded {
                asked += 1;
                assert!(asked < 10, "write {nth} {fault:?}: never recorded");
            }
            let run = stage.until("fix", has_result).await;
            let status = run.status.unwrap();
            assert!(condition::is_true(&status.conditions, condition::types::RESULT_RECORDED));
            assert_eq!(status.result.unwrap().commit, Some(stage.tip()));
            let commits = stage.repo.bare_git(&["rev-list", "--count", "ostler/results"]);
            assert_eq!(commits, "3", "write {nth} {fault:?}: the beginning, one claim, one result");
            running.stop().await;
        }
    }
}

#[tokio::test]
async fn a_claim_and_a_result_are_said_once_however_late_they_show() {
    let stage = Stage::new().await;
    let running = stage.start();
    let names: Vec<String> = (0..40).map(|number| format!("fix-{number}")).collect();
    for name in &names {
        stage.asking(name).await;
    }
    for name in &names {
        stage.until(name, is_claimed).await;
        // Nobody reports: the recorder writes what is known.
        stage.end(name).await;
    }
    for name in &names {
        stage.until(name, has_result).await;
    }
    running.stop().await;
    for verb in ["claim", "record"] {
        let mut said = stage.audited(verb);
        let lines = said.len();
        said.sort();
        said.dedup();
        assert_eq!((lines, said.len()), (names.len(), names.len()), "{verb}");
    }
}
