//! Samples what a run uses, and says when that is too much.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::process;
use crate::{
    kinds::Reason,
    ports::workloads::Limits,
    shim::{self, wire::Used},
};

/// Between two looks at the processes.
const PROCESS_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at the disk, at least; a look at many files takes long, so it is at most a tenth of the time.
const DISK_INTERVAL: Duration = Duration::from_millis(500);

/// A limit that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passed {
    /// Which, as a reason of the run.
    pub(super) reason: Reason,
    /// Which value.
    pub(super) message: String,
}

/// Who says what the processes use.
#[derive(Debug, Clone)]
pub(super) enum Meter {
    /// The process table of this machine, below the PID 1 of the place, which is not counted itself.
    Below(i32),
    /// The shim, of its own container.
    Shim(watch::Receiver<Used>),
}

impl Meter {
    /// What they use now; nothing, where nobody can say.
    pub(super) fn used(&self) -> Used {
        match self {
            Self::Shim(told) => *told.borrow(),
            Self::Below(shim) => {
                let entries = process::descendants(*shim).unwrap_or_default();
                Used {
                    threads: entries.iter().filter(|entry| !entry.zombie).map(|entry| entry.threads).sum(),
                    memory: entries.iter().map(|entry| shim::own_memory(entry.process.pid)).sum(),
                }
            }
        }
    }
}

/// What is watched.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Who says what the processes use.
    pub(super) meter: Meter,
    /// Folders that count as disk.
    pub(super) folders: Vec<PathBuf>,
    /// The limits.
    pub(super) limits: Limits,
}

impl Watched {
    /// Watches until a limit is passed.
    pub(super) async fn passed(&self) -> Passed {
        tokio::select! {
            passed = self.processes_pass() => passed,
            passed = self.disk_passes() => passed,
        }
    }

    async fn processes_pass(&self) -> Passed {
        let mut interval = tokio::time::interval(PROCESS_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Some(passed) = self.processes() {
                return passed;
            }
        }
    }

    fn processes(&self) -> Option<Passed> {
        let Used { threads, memory } = self.meter.used();
        let (most_threads, most_memory) = (self.limits.processes.value, self.limits.memory_bytes.value);
        if threads > most_threads {
            let message = format!("{threads} processes and threads, the limit is {most_threads}");
            return Some(Passed { reason: Reason::ProcessLimit, message });
        }
        (memory > most_memory)
            .then(|| Passed { reason: Reason::OutOfMemory, message: bytes(memory, most_memory) })
    }

    async fn disk_passes(&self) -> Passed {
        loop {
            let (watched, began) = (self.clone(), Instant::now());
            // A look that panicked or was cancelled saw nothing.
            let passed = tokio::task::spawn_blocking(move || watched.disk()).await.unwrap_or_default();
            if let Some(passed) = passed {
                return passed;
            }
            tokio::time::sleep(DISK_INTERVAL.max(began.elapsed() * 9)).await;
        }
    }

    /// Looks at the disk once.
    pub(super) fn disk(&self) -> Option<Passed> {
        let used = self.folders.iter().map(|folder| size(folder)).sum();
        let limit = self.limits.disk_bytes.value;
        (used > limit).then(|| Passed { reason: Reason::DiskLimit, message: bytes(used, limit) })
    }
}

fn bytes(used: u64, limit: u64) -> String {
    format!("{used} bytes, the limit is {limit}")
}

/// Bytes that a folder takes on disk. What cannot be read, or goes away meanwhile, counts nothing.
fn size(folder: &Path) -> u64 {
    let (mut sum, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            // Of a link this is the link's own size.
            let Ok(found) = entry.metadata() else { continue };
            // The unit of st_blocks is 512 bytes, stat(3type).
            sum += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    sum
}

/// The CPUs that this process may use.
pub(super) fn cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_what_is_written_not_what_is_linked() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", root.path().join("link")).unwrap();
        let size = size(root.path());
        assert!((1 << 20..2 << 20).contains(&size), "{size}");
    }
}
