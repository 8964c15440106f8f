//! A running `ostler up`: the real program, followed through what it prints and serves.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use ostler::embedded::access::{EmbeddedAccess, Scope};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::stage::Stage;

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_mins(10);

/// A line of progress, and when it came.
pub(crate) struct Line {
    pub(crate) at: Instant,
    what: String,
    name: String,
    state: String,
    text: String,
}

impl Line {
    /// True for the repository's word that this commit is in force.
    pub(crate) fn applied(&self, commit: &str) -> bool {
        self.what == "repository" && self.state == "Succeeded" && self.text.starts_with(&commit[..12])
    }

    /// The run's name, when it is running.
    pub(crate) fn running(&self) -> Option<&str> {
        self.run().filter(|_| self.state == "Running")
    }

    /// The run's name, when its success is in the ledger.
    pub(crate) fn recorded(&self) -> Option<&str> {
        self.run().filter(|_| self.state == "Succeeded" && self.text.contains("recorded in"))
    }

    fn run(&self) -> Option<&str> {
        self.name.strip_prefix("default/").filter(|_| self.what == "run")
    }

    fn is_bad(&self) -> bool {
        self.what == "run" && ["Failed", "Lost", "TimedOut", "Held"].contains(&self.state.as_str())
    }
}

/// The process; it ends with this.
pub(crate) struct Up {
    child: Child,
    lines: Receiver<Result<Line>>,
    state: PathBuf,
    api: String,
    token: SecretString,
    client: reqwest::blocking::Client,
}

impl Up {
    /// Starts `ostler up` on the stage's config repository, and waits until the commit is in force.
    pub(crate) fn start(stage: &Stage, commit: &str) -> Result<Self> {
        Self::start_with(stage, commit, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(stage: &Stage, commit: &str, more: &[OsString]) -> Result<Self> {
        let state = stage.path("state");
        fs::create_dir_all(&state)?;
        let token = EmbeddedAccess::open(&state)?.mint("bench", Scope::Read, None)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_ostler"))
            .arg("up")
            .arg(stage.config())
            .arg("--state")
            .arg(&state)
            .arg("--signing-key")
            .arg(stage.key())
            .arg("--json")
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(stage.path("up.log"))?)
            .spawn()
            .context("start ostler up")?;
        let stdout = child.stdout.take().context("ostler up has no output")?;
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let at = Instant::now();
                let parsed = line.map_err(anyhow::Error::from).and_then(|line| parse(at, &line));
                if to.send(parsed).is_err() {
                    return;
                }
            }
        });
        let client = reqwest::blocking::Client::builder().no_proxy().build()?;
        let mut up = Self { child, lines, state, api: String::new(), token, client };
        up.api = up.until(|line| line.what == "api")?.text;
        up.until(|line| line.applied(commit))?;
        Ok(up)
    }

    /// The state folder.
    pub(crate) fn state(&self) -> &PathBuf {
        &self.state
    }

    /// Waits for a line. A run that goes wrong ends the bench.
    pub(crate) fn until(&self, mut wanted: impl FnMut(&Line) -> bool) -> Result<Line> {
        let last = Instant::now() + PATIENCE;
        loop {
            let left = last.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).context("ostler up did not say what was waited for")??;
            if line.is_bad() {
                bail!("{} is {}: {}", line.name, line.state, line.text);
            }
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    /// Asks the API.
    pub(crate) fn ask(&self, path: &str) -> Result<String> {
        let request = self.client.get(format!("{}{path}", self.api)).bearer_auth(self.token.expose_secret());
        Ok(request.send()?.error_for_status()?.text()?)
    }

    /// One of its metrics.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.ask("/metrics")?, name)
    }

    /// Resident memory now and at its highest, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        memory(self.child.id())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // it may have ended
        let _ = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .map(|pid| kill_process(pid, Signal::TERM));
        let _ = self.child.wait();
    }
}

/// Resident memory of a process now and at its highest, in bytes.
pub(crate) fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of memory")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// The sum of all lines of this name in an answer of `/metrics`.
pub(crate) fn metric(text: &str, name: &str) -> Result<f64> {
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<f64>().map_err(|error| anyhow!("{name}: {value}: {error}"))).sum()
}

fn parse(at: Instant, line: &str) -> Result<Line> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
    let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let api = value["api"].as_str();
    let (what, text) =
        api.map_or_else(|| (field("what"), field("text")), |api| ("api".to_owned(), api.to_owned()));
    Ok(Line { at, what, name: field("name"), state: field("state"), text })
}
