//! What PID 1 owes its namespace: it collects every process that ends, and ends those that an agent leaves behind.

use std::{io, thread, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus},
};

/// How long to let killed processes go away before looking again.
const KILL_PAUSE: Duration = Duration::from_millis(2);

/// How an agent ended.
pub(super) struct Ended {
    /// Its exit code; 128 + n for signal n.
    pub(super) code: i32,
    /// Processes that outlived it.
    pub(super) left_behind: u32,
}

/// Collects processes until the agent ended; then ends and collects all others.
pub(super) fn reap(agent: Pid) -> io::Result<Ended> {
    let code = loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == agent => break exit_code(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let left_behind = others()?.len();
    // In its own PID namespace every process descends from PID 1: no children means no processes.
    loop {
        kill_others()?;
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => break,
            Ok(None) => thread::sleep(KILL_PAUSE),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Ended { code, left_behind: u32::try_from(left_behind).unwrap_or(u32::MAX) })
}

fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// SIGKILL to every process of this PID namespace but ourselves.
pub(super) fn kill_others() -> io::Result<()> {
    for pid in others()? {
        // Gone in between is what we want.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    Ok(())
}

/// Every process of this PID namespace but ourselves and those that only wait to be collected.
pub(super) fn others() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        if state.is_some_and(|state| state != b'Z') {
            found.push(pid);
        }
    }
    Ok(found)
}
