//! The output of a run in a cluster: from its pod's sidecar while there is one, then from the ledger.

use std::time::Duration;

use kube::Client;

use super::{
    Error, Out, beyond, is_terminal,
    recorded::{self, Ledger},
    until,
};
use crate::{
    kinds::{HarnessRun, ObjectId, Phase},
    kubernetes::workloads::{OutputError, copy_output},
    ports::workloads::sidecar::LogsRequest,
    telemetry::Chain,
};

/// Between two attempts to reach a sidecar that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints the output of a run that exists.
pub(super) async fn print(
    client: &Client,
    ledger: Ledger<'_>,
    id: &ObjectId,
    mut run: HarnessRun,
    follow: bool,
    out: Out<'_>,
) -> Result<(), Error> {
    let (mut shown, objects) = (0, ledger.plane.objects());
    loop {
        if follow {
            run = until(objects, id, has_begun).await?;
        }
        if is_recorded(&run) {
            break;
        }
        if !has_begun(&run) {
            return Err(none(id, "it has not started; `ostler logs -f` waits for it"));
        }
        let Some(pod) = pod(&run) else {
            if is_terminal(&run) {
                break;
            }
            let why = "it is at work, but in no pod; its output is with the `ostler up` that runs it, until it ends";
            return Err(none(id, why));
        };
        let copied = copy_output(client, &id.namespace, pod, LogsRequest { since: shown, follow }, |piece| {
            shown += piece.len() as u64;
            out.write_all(piece)?;
            out.flush()
        });
        let copied = tokio::select! {
            copied = copied => copied,
            // a node that is gone may never end a stream
            Ok(_) = until(objects, id, is_recorded), if follow => continue,
        };
        match copied {
            Ok(()) => return Ok(()),
            Err(OutputError::Taken(error)) => return Err(error.into()),
            Err(_) if is_terminal(&run) => break,
            Err(OutputError::Broken(_) | OutputError::Sidecar(_)) if follow => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(none(id, &Chain(&error).to_string())),
        }
    }
    let all = recorded::read(ledger, id, Some(&run)).await?;
    out.write_all(beyond(&all, shown))?;
    Ok(())
}

fn none(run: &ObjectId, why: &str) -> Error {
    Error::NoLogs { run: run.clone(), why: why.to_owned() }
}

/// True when its agent was started, or never will be.
fn has_begun(run: &HarnessRun) -> bool {
    let phase = run.status.as_ref().and_then(|status| status.phase);
    phase.is_some_and(|phase| phase.is_terminal() || matches!(phase, Phase::Running | Phase::Collecting))
}

fn is_recorded(run: &HarnessRun) -> bool {
    let result = run.status.as_ref().and_then(|status| status.result.as_ref());
    is_terminal(run) && result.is_some_and(|result| result.commit.is_some())
}

/// Its pod: a place on a machine is named as the run's UID.
fn pod(run: &HarnessRun) -> Option<&str> {
    let place = run.status.as_ref()?.place.as_ref()?;
    (run.metadata.uid.as_ref() != Some(&place.name)).then_some(place.name.as_str())
}
