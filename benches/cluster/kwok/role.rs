//! A role of ostler as a process: what it says, what it costs.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;
use crate::{report, up};

/// `ostler controller` or `ostler recorder`; it ends with this.
pub(super) struct Role {
    child: Child,
    said: Receiver<Value>,
    health: String,
    client: reqwest::blocking::Client,
}

impl Role {
    /// Starts it; what it logs goes to a file.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("start a role of ostler")?;
        let stdout = child.stdout.take().context("it has no output")?;
        let (to, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // who listened may be gone; it must not be held up by a full pipe all the same
                let _ = to.send(serde_json::from_str(&line).unwrap_or_default());
            }
        });
        let client = reqwest::blocking::Client::builder().no_proxy().build()?;
        let mut role = Self { child, said, health: String::new(), client };
        role.health = role.says("health")?;
        Ok(role)
    }

    /// Waits until it says this, and gives what it says of it.
    pub(super) fn says(&self, what: &str) -> Result<String> {
        loop {
            let line = self.said.recv_timeout(PATIENCE).with_context(|| format!("it never says {what}"))?;
            if line["what"] == what {
                return Ok(line["value"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// Waits until it has read the cluster.
    pub(super) fn until_ready(&self) -> Result<()> {
        let last = Instant::now() + PATIENCE;
        while Instant::now() < last {
            if self.client.get(format!("{}/readyz", self.health)).send()?.status().is_success() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("it is never ready")
    }

    /// All its metrics.
    pub(super) fn metrics(&self) -> Result<String> {
        let answer = self.client.get(format!("{}/metrics", self.health)).send()?;
        Ok(answer.error_for_status()?.text()?)
    }

    /// The time on a processor that it took so far, its own and the kernel's for it.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold anything; the fields after it begin with the third, proc_pid_stat(5).
        let fields = stat.rsplit_once(')').context("a line of processes")?.1;
        let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks: u32 = ticks.sum::<Result<_, _>>()?;
        let per_second: u32 = report::said("getconf", &["CLK_TCK"])?.parse()?;
        Ok(Duration::from_secs(ticks.into()) / per_second)
    }

    /// Resident memory now and at its highest, in bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64)> {
        up::memory(self.child.id())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // it may have ended
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
