//! `ostler logs`: from the sidecar while the agent runs, from what its place keeps until that goes, then from the ledger.
//! In a cluster a sidecar is reached through the API server, by whoever may execute commands in the run's pod.

mod pods;
mod recorded;

use std::{
    io::{self, Seek},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::{io::AsyncReadExt, net::UnixStream};

use super::{Error, Out, refused, stop::run_name};
use crate::{
    cli::{
        target::{Plane, TargetArgs},
        up::state_folder::Layout,
    },
    harness::{
        control::{self, Request},
        place::Folder,
    },
    kinds::{HarnessRun, Kind, ObjectId, Phase},
    names::{Namespace, ObjectName},
    ports::{
        Objects,
        objects::{self, typed},
        workloads::sidecar::LogsRequest,
    },
};
use recorded::Ledger;

/// Arguments of `ostler logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler logs fix-login
  ostler logs fix-login -f      from the beginning until the agent ends; waits for its start
  ostler logs fix-login --secrets ~/secrets      a private ledger, with a credential of your own
The output of a run that has ended is read from the ledger's refs/ostler/runs/NAMESPACE/NAME, with the Secret that the
ConfigRepository names for it: that of the `ostler up`, or the cluster's, if you may get it.
That of a run in a pod is read from there while it runs: it takes the rights to get and create pods/exec.")]
pub struct LogsArgs {
    /// The run
    #[arg(value_parser = run_name)]
    run: ObjectName,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: Namespace,
    /// Go on until the output ends
    #[arg(short, long)]
    follow: bool,
    /// Read the Secret that the ledger needs from this folder: manifests of `kind: Secret`, as for `ostler up --secrets`
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Bytes read at once.
const PIECE_BYTES: usize = 64 << 10;

impl LogsArgs {
    pub(super) async fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let id = ObjectId::new(Kind::HarnessRun, self.namespace.clone(), self.run.clone());
        let plane = Plane::find(&self.target).await?;
        let ledger = Ledger { plane: &plane, secrets: self.secrets.as_deref() };
        let mut run = objects::get::<HarnessRun>(plane.objects(), &id.namespace, &id.name).await?;
        if let (Some(client), Some(found)) = (plane.cluster(), &run) {
            pods::print(client, ledger, &id, found.clone(), self.follow, out).await?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(found) = &mut run {
            let layout = plane.layout();
            if self.follow && !has_begun(layout, found) {
                *found = until(plane.running()?, &id, |run| has_begun(layout, run)).await?;
            }
            if let Some(stream) = at_place(layout, found, self.follow).await {
                let shown = copy(stream, out).await?;
                // A sidecar that was killed did not say everything: its place has the rest, or the ledger.
                if self.follow && !kept(layout, found, shown, out)? {
                    let found = objects::get::<HarnessRun>(plane.objects(), &id.namespace, &id.name).await?;
                    let all = recorded::read(ledger, &id, found.as_ref()).await?;
                    out.write_all(beyond(&all, shown))?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            if kept(layout, found, 0, out)? {
                return Ok(ExitCode::SUCCESS);
            }
            if !is_terminal(found) {
                let phase = found.status.as_ref().and_then(|status| status.phase);
                let phase = phase.map_or("not seen yet", Phase::as_str);
                let why = format!("it has not started: it is {phase}; `ostler logs -f` waits for it");
                return Err(Error::NoLogs { run: id, why });
            }
        }
        out.write_all(&recorded::read(ledger, &id, run.as_ref()).await?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn is_terminal(run: &HarnessRun) -> bool {
    run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_terminal)
}

/// The place of a run on this machine.
fn place(layout: Option<&Layout>, run: &HarnessRun) -> Option<Folder> {
    Some(Folder::new(layout?.places().join(run.uid()?)))
}

fn has_begun(layout: Option<&Layout>, run: &HarnessRun) -> bool {
    is_terminal(run) || place(layout, run).is_some_and(|place| place.control().exists())
}

/// Waits until the run is as told.
async fn until(
    objects: &dyn Objects,
    id: &ObjectId,
    reached: impl Fn(&HarnessRun) -> bool + Send,
) -> Result<HarnessRun, Error> {
    let mut events = objects.watch(id.kind, Some(id.namespace.clone()));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) if object.name_any() == id.name.as_str() => {
                let run: HarnessRun = typed(object)?;
                if reached(&run) {
                    return Ok(run);
                }
            }
            Ok(Event::Delete(object)) if object.name_any() == id.name.as_str() => break,
            Ok(_) => {}
            // a broken watch begins again by itself
            Err(error) => refused(&error)?,
        }
    }
    Err(Error::NotFound(id.clone()))
}

/// The sidecar's stream, while there is a sidecar.
async fn at_place(layout: Option<&Layout>, run: &HarnessRun, follow: bool) -> Option<UnixStream> {
    let socket = place(layout, run)?.control();
    control::open(&socket, &Request::Logs(LogsRequest { since: 0, follow })).await.ok()
}

/// Copies to the stream's end; how many bytes that were.
async fn copy(mut stream: UnixStream, out: Out<'_>) -> Result<u64, Error> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut shown = 0;
    loop {
        // a sidecar that goes away ends the output
        let length = stream.read(&mut piece).await.unwrap_or(0);
        if length == 0 {
            return Ok(shown);
        }
        shown += length as u64;
        out.write_all(&piece[..length])?;
        out.flush()?;
    }
}

/// What of an output is left when so many bytes were shown.
fn beyond(all: &[u8], shown: u64) -> &[u8] {
    usize::try_from(shown).ok().and_then(|shown| all.get(shown..)).unwrap_or_default()
}

/// What a place without a sidecar kept, after so many bytes. False: there is no such file.
fn kept(layout: Option<&Layout>, run: &HarnessRun, shown: u64, out: Out<'_>) -> Result<bool, Error> {
    let Some(path) = place(layout, run).map(|place| place.output()) else { return Ok(false) };
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(Error::File { path, source }),
    };
    file.seek(io::SeekFrom::Start(shown))?;
    io::copy(&mut file, out)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn run() -> HarnessRun {
        let run = serde_json::json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "team", "name": "r", "uid": "u-1"}, "spec": {}});
        serde_json::from_value(run).unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_goes_on_from_what_the_place_kept() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        let output = place(Some(&layout), &run()).unwrap().output();
        std::fs::create_dir_all(output.parent().unwrap()).unwrap();
        std::fs::write(&output, "first, second, third").unwrap();
        for said in ["", "first, ", "first, second, third"] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(said.as_bytes()).await.unwrap();
            drop(far);
            let mut out = Vec::new();
            let shown = copy(near, &mut out).await.unwrap();
            assert_eq!(shown, said.len() as u64);
            assert!(kept(Some(&layout), &run(), shown, &mut out).unwrap());
            assert_eq!(out, b"first, second, third", "after {said:?}");
        }
        std::fs::remove_dir_all(layout.places()).unwrap();
        assert!(!kept(Some(&layout), &run(), 0, &mut Vec::new()).unwrap());
    }

    #[test]
    fn the_ledger_gives_what_was_not_shown() {
        for (shown, left) in [(0, "abc"), (2, "c"), (3, ""), (4, ""), (u64::MAX, "")] {
            assert_eq!(beyond(b"abc", shown), left.as_bytes(), "{shown}");
        }
    }
}
