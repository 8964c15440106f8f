//! Processes by what cannot be reused: their number and their start.

use std::{fs, io};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process of this machine. The same number with another start is another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its start in clock ticks after boot: field 22 of `/proc/pid/stat`, `proc_pid_stat(5)`.
    pub start: u64,
}

/// A line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) process: Process,
    pub(super) parent: i32,
    pub(super) threads: u64,
    pub(super) zombie: bool,
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub fn own() -> io::Result<Self> {
        Self::find(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(pid: i32) -> io::Result<Self> {
        Ok(entry(pid)?.process)
    }

    /// Whether it lives. One that only waits to be collected by its parent does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        entry(self.pid).is_ok_and(|entry| entry.process == *self && !entry.zombie)
    }

    /// SIGKILL, if it lives.
    pub fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) {
            // Gone in between is what we want.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// All processes below `root`, without it.
pub(super) fn descendants(root: i32) -> io::Result<Vec<Entry>> {
    let mut rest: Vec<Entry> = Vec::new();
    for listed in fs::read_dir("/proc")? {
        let name = listed?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        // A process that ended since is not there.
        rest.extend(pid.and_then(|pid| entry(pid).ok()));
    }
    Ok(below(root, rest))
}

fn below(root: i32, mut rest: Vec<Entry>) -> Vec<Entry> {
    let (mut found, mut parents) = (Vec::new(), vec![root]);
    while let Some(parent) = parents.pop() {
        let (children, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|entry| entry.parent == parent);
        parents.extend(children.iter().map(|child| child.process.pid));
        found.extend(children);
        rest = others;
    }
    found
}

fn entry(pid: i32) -> io::Result<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(pid, &stat).ok_or_else(|| io::Error::other("the kernel's line on a process cannot be read"))
}

/// Reads a line as in `proc_pid_stat(5)`. The name in parentheses may hold anything, so fields count from its end.
fn parse(pid: i32, stat: &str) -> Option<Entry> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let state = field(3)?;
    Some(Entry {
        process: Process { pid, start: field(22)?.parse().ok()? },
        parent: field(4)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let line = "7 (a) S 1) R 3 4 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 2 0 991 0 0";
        let expected =
            Entry { process: Process { pid: 7, start: 991 }, parent: 3, threads: 2, zombie: false };
        assert_eq!(parse(7, line), Some(expected));
        assert_eq!(parse(7, "7 (x"), None);
    }

    #[test]
    fn the_same_number_with_another_start_is_dead() {
        let own = Process::own().unwrap();
        assert!(own.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
    }

    #[test]
    fn descendants_of_descendants_count() {
        let entry =
            |pid, parent| Entry { process: Process { pid, start: 0 }, parent, threads: 1, zombie: false };
        let table = vec![entry(4, 3), entry(3, 2), entry(9, 1), entry(5, 2)];
        let mut found: Vec<_> = below(2, table).iter().map(|entry| entry.process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4, 5]);
    }
}
