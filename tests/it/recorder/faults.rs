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
            stage.asking("fix").await;
            let run = stage.until("fix", is_claimed).await;
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
