//! The status of a run on an API server, for those who wait for it.

use std::time::{Duration, Instant};

use kube::Api;
use ostler::kinds::{HarnessRun, Phase, harness_run::HarnessRunStatus};

use crate::cluster::PAUSE;

/// Waits until a run's status is as told.
///
/// # Errors
/// With the last status that was seen, for people, when it has not got there in time.
pub(crate) async fn until(
    runs: &Api<HarnessRun>,
    name: &str,
    patience: Duration,
    reached: impl Fn(&HarnessRunStatus) -> bool,
) -> Result<HarnessRunStatus, String> {
    let begun = Instant::now();
    loop {
        let run = runs.get_opt(name).await.unwrap();
        match run.and_then(|run| run.status) {
            Some(status) if reached(&status) => return Ok(status),
            late if begun.elapsed() > patience => return Err(serde_json::to_string_pretty(&late).unwrap()),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// True when the run has ended and its result is in the ledger.
pub(crate) fn is_recorded(status: &HarnessRunStatus) -> bool {
    status.result.as_ref().is_some_and(|result| result.commit.is_some())
        && status.phase.is_some_and(Phase::is_terminal)
}
