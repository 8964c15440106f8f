//! Collects what the agent left.
//!
//! A workspace is in the hands of the agent until the end, so it is read by a process that has nothing to lose: under
//! bubblewrap, without a network, the workspace read-only; in a pod, in the agent's own container, once the agent has ended.

mod beside;
mod inside;
mod pack;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, process::Stdio, sync::Arc, time::Duration};

use tokio::process::Command;

use super::{
    agent::Cage,
    bubblewrap::{self, CollectorView, Host},
    sidecar::Sidecar,
    workspace,
};
use crate::report::{ChangesSeen, End, FinalRecord, Report};

pub(super) use inside::{CollectArgs, collect};
use inside::{FOUND, Found, Work};
pub(super) use pack::{lighten, pack};

/// How long reading a workspace may take.
const TIME: Duration = Duration::from_mins(10);
/// Most bytes of the collector's word.
const FOUND_BYTES: u64 = 16 << 20;

/// Makes the report. What cannot be collected becomes a note: a report there always is.
pub(super) async fn gather(
    sidecar: &Arc<Sidecar>,
    cage: Option<&mut Cage>,
    end: End,
    record: FinalRecord,
    mut notes: Vec<String>,
) -> Report {
    let state = sidecar.state().borrow().clone();
    let found = match state.started_at {
        None => Found::default(),
        Some(_) => found(sidecar, cage).await.unwrap_or_else(|error| {
            notes.push(format!("the workspace could not be collected: {error}"));
            Found::default()
        }),
    };
    notes.extend(found.notes);
    let nothing =
        ChangesSeen { base: state.base.clone(), head: state.base.clone(), ..ChangesSeen::default() };
    Report {
        run: sidecar.place.spec.run.clone(),
        place: sidecar.place.uid.to_string(),
        digest: sidecar.place.spec.digest.clone(),
        end,
        record,
        started_at: state.started_at,
        ended_at: state.ended_at,
        startup: state.startup,
        egress_proof: state.egress_proven,
        egress: state.egress,
        limits_not_enforced: state.limits_not_enforced.unwrap_or_default(),
        changes: found.changes.unwrap_or(nothing),
        notes,
        artifacts: found.artifacts,
        undelivered: Vec::new(),
    }
}

async fn found(sidecar: &Arc<Sidecar>, cage: Option<&mut Cage>) -> io::Result<Found> {
    let (folder, place) = (&sidecar.folder, &sidecar.place);
    let out = folder.outbox().join("collected");
    super::place::private_dir(&out)?;
    let own_instructions = folder.root().join(workspace::OWN_INSTRUCTIONS).exists();
    let work = Work {
        base: sidecar.state().borrow().base.clone(),
        branch: place.spec.checkout.as_ref().map(|checkout| checkout.branch.clone()).unwrap_or_default(),
        run: place.spec.run.to_string(),
        uid: place.spec.run.uid.to_string(),
        exclude: workspace::own_paths(place, own_instructions),
        artifacts: place.spec.artifacts.clone(),
        time: jiff::Timestamp::now(),
    };
    fs::write(out.join(inside::WORK), serde_json::to_vec(&work)?)?;
    // The agent's own modes must not hide its files from us.
    readable(&folder.rooms(place).workspace);
    match (place.pod(), cage) {
        (None, _) => confined(sidecar, &out).await?,
        (Some(_), Some(cage)) => beside::collect(sidecar, cage, &out, &work).await?,
        (Some(_), None) => {
            return Err(io::Error::other(
                "the agent's container, in which that is read, was killed as a whole",
            ));
        }
    }
    read_found(&out.join(FOUND))
}

/// Runs the collector under bubblewrap.
async fn confined(sidecar: &Sidecar, out: &Path) -> io::Result<()> {
    let folder = &sidecar.folder;
    let complaints = folder.root().join("collect.log");
    let view = CollectorView {
        host: &Host::look()?,
        program: &std::env::current_exe()?,
        workspace: &folder.rooms(&sidecar.place).workspace,
        out,
    };
    let mut child = Command::new("bwrap")
        .args(bubblewrap::collector(&view, &["harness", "collect"]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&complaints)?)
        .kill_on_drop(true)
        .spawn()?;
    let status = tokio::time::timeout(TIME, child.wait()).await??;
    if !status.success() {
        let text = fs::read_to_string(&complaints).unwrap_or_default();
        let text: String = text.trim().chars().take(1024).collect();
        return Err(io::Error::other(format!("the collector ended with {status}: {text}")));
    }
    Ok(())
}

fn read_found(path: &Path) -> io::Result<Found> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.len() > FOUND_BYTES {
        return Err(io::Error::other("the collector's word is not a file, or too long"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Gives the owner access to the top folder back, if the agent took it away.
fn readable(workspace: &Path) {
    if let Ok(found) = fs::symlink_metadata(workspace)
        && found.is_dir()
    {
        let mode = found.permissions().mode() | 0o700;
        // The collector says what it cannot read.
        let _ = fs::set_permissions(workspace, fs::Permissions::from_mode(mode));
    }
}
