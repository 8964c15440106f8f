//! Looks after one place: starts its sidecar, gives it secrets, passes on what it notices.

use std::{
    io,
    process::{Command, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    task::AbortHandle,
};

use super::{
    Shared,
    observe::{needs_keeper, seen_stage},
};
use crate::{
    harness::{
        control::{self, Notice, Request, Value},
        place::Folder,
        secrets,
    },
    ports::workloads::{PlaceSpec, Stage},
};

/// The pause before another attempt; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What a sidecar takes over from our environment: nothing that may hold a credential, or lead Git elsewhere.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "RUST_LOG"];
/// Most bytes of a sidecar's notice.
const NOTICE_BYTES: u64 = 1 << 20;

/// The task that looks after a place; it ends with this.
#[derive(Debug)]
pub(super) struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keeper {
    /// Starts the task.
    pub(super) fn start(shared: &Arc<Shared>, spec: PlaceSpec) -> Self {
        let folder = shared.folder(&spec.run.uid);
        let task = Task { shared: Arc::downgrade(shared), folder, spec };
        Self(tokio::spawn(task.keep()).abort_handle())
    }

    /// Whether the place needs nobody any more, or nobody came so far.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

struct Task {
    shared: Weak<Shared>,
    folder: Folder,
    spec: PlaceSpec,
}

impl Task {
    /// Goes on until the place has no sidecar and needs none.
    async fn keep(self) {
        let mut pause = FIRST_PAUSE;
        while let Some(shared) = self.shared.upgrade() {
            let needed = needs_keeper(&self.folder);
            let started = needed && self.start_if_missing(&shared);
            shared.changed(&self.spec.run);
            drop(shared);
            if !needed {
                return;
            }
            if !started && self.watch().await.is_ok() {
                pause = FIRST_PAUSE;
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Starts a sidecar for a place that has none and is to have one. True: it is on its way.
    fn start_if_missing(&self, shared: &Shared) -> bool {
        let state = self.folder.state().ok().flatten();
        let wanted = matches!(seen_stage(&self.folder, state.as_ref()), Stage::Created | Stage::Delivering);
        if !wanted || self.folder.has_sidecar().unwrap_or(true) {
            return false;
        }
        let result = start_sidecar(&shared.options.program, &self.folder);
        if let Err(error) = &result {
            tracing::error!(run = %self.spec.run, %error, "the sidecar cannot be started");
        }
        true
    }

    /// Stays connected to the sidecar until it ends.
    async fn watch(&self) -> io::Result<()> {
        let stream = control::open(&self.folder.control(), &Request::Watch).await?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            (&mut reader).take(NOTICE_BYTES).read_until(b'\n', &mut line).await?;
            if line.is_empty() {
                return Ok(());
            }
            let notice: Notice = serde_json::from_slice(&line)?;
            let Some(shared) = self.shared.upgrade() else { return Ok(()) };
            if notice.needs_secrets {
                self.provide(&shared).await?;
            }
            shared.changed(&self.spec.run);
        }
    }

    /// Gives the sidecar its secrets. One that is gone for good ends the run; one that is out of reach is asked for again.
    async fn provide(&self, shared: &Shared) -> io::Result<()> {
        let token = (shared.options.tokens)(&self.spec.run).map_err(io::Error::other)?;
        let sidecar = secrets::Sidecar::OnMachine(Value::from(&token));
        let request = secrets::request(&*shared.options.secrets, &self.spec, sidecar).await;
        let request = request.map_err(io::Error::other)?;
        control::ask(&self.folder.control(), &request).await
    }
}

/// Starts a sidecar that belongs to nobody; waits only for the process in between.
fn start_sidecar(program: &std::path::Path, folder: &Folder) -> io::Result<()> {
    let status = Command::new(program)
        .args(["harness", "--detach", "--place"])
        .arg(folder.root())
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("its start ended with {status}"))) }
}
