//! Knowing that a local repository changed, without asking all the time; and when to ask all the others.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Error, Repository};

/// How often the watched folders are compared with those of that name: one that was replaced sends no event.
const IDENTITY_CHECK: Duration = Duration::from_secs(1);

/// The time to the next poll of a remote: `interval`, give or take a tenth, spread by `seed`, so that many repositories
/// do not ask at once. Equal inputs give equal results.
#[must_use]
pub fn poll_delay(interval: Duration, seed: u64) -> Duration {
    // The finalizer of splitmix64 (Steele, Lea, Flood 2014): neighbouring seeds end far apart.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let thousandth = u32::try_from((mixed ^ (mixed >> 31)) % 201).unwrap_or_default();
    interval / 1000 * (900 + thousandth)
}

/// Ticks when a reference of a local repository may have moved. Dropped, it stops.
#[derive(Debug)]
pub struct Watch {
    ticks: tokio::sync::mpsc::Receiver<()>,
    stop: mpsc::Sender<Signal>,
}

#[derive(Debug)]
enum Signal {
    Event(notify::Result<notify::Event>),
    Stop,
}

impl Watch {
    /// Watches the repository that `path` is in: a checkout, a linked worktree or a bare one. Start watching first
    /// and read the repository then, so that nothing is missed.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a repository, [`Error::Unwatchable`] when the system has no watches left.
    pub fn start(path: &Path) -> Result<Self, Error> {
        let repository = Repository::open(path)?;
        let (signal, signals) = mpsc::channel();
        let (tick, ticks) = tokio::sync::mpsc::channel(1);
        let stop = signal.clone();
        let mut folders = Folders::new(&repository, signal)?;
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || folders.run(&signals, &tick))
            .map_err(Error::io("start a thread to watch", path))?;
        Ok(Self { ticks, stop })
    }

    /// Waits for a change. Any number of changes since the last call are one tick. Cancel safe.
    pub async fn tick(&mut self) {
        if self.ticks.recv().await.is_none() {
            // The thread ends only with us.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.stop.send(Signal::Stop);
    }
}

/// A folder by its place on disk, whatever its name.
type Identity = Option<(u64, u64)>;

struct Folders {
    git_dir: PathBuf,
    common_dir: PathBuf,
    signal: mpsc::Sender<Signal>,
    watcher: RecommendedWatcher,
    watched: Vec<Identity>,
}

impl Folders {
    fn new(repository: &Repository, signal: mpsc::Sender<Signal>) -> Result<Self, Error> {
        let real = |path: PathBuf| std::fs::canonicalize(&path).map_err(Error::io("find", path));
        let (git_dir, common_dir) = (real(repository.git_dir())?, real(repository.common_dir())?);
        let watcher = arm(&git_dir, &common_dir, &signal)?;
        let mut folders = Self { git_dir, common_dir, signal, watcher, watched: Vec::new() };
        folders.watched = folders.identities();
        Ok(folders)
    }

    fn run(&mut self, signals: &mpsc::Receiver<Signal>, tick: &tokio::sync::mpsc::Sender<()>) {
        loop {
            let moved = match signals.recv_timeout(IDENTITY_CHECK) {
                Ok(Signal::Event(Ok(event))) => self.moves_a_reference(&event),
                // Events were lost.
                Ok(Signal::Event(Err(_))) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
            let rearmed = self.rearm();
            if moved || rearmed {
                // Full means that a tick waits already.
                let _ = tick.try_send(());
            }
        }
    }

    /// Reading the repository makes events, too, and so do locks: those are not news.
    fn moves_a_reference(&self, event: &notify::Event) -> bool {
        if event.kind.is_access() {
            return false;
        }
        event.need_rescan()
            || event.paths.iter().any(|path| {
                let lock = path.extension().is_some_and(|extension| extension == "lock");
                let named = ["HEAD", "packed-refs"].iter().any(|name| path.ends_with(name));
                let here = path.parent() == Some(&self.git_dir) || path.parent() == Some(&self.common_dir);
                !lock && (path.starts_with(self.common_dir.join("refs")) || (named && here))
            })
    }

    fn identities(&self) -> Vec<Identity> {
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        [self.git_dir.as_path(), &self.common_dir, &self.common_dir.join("refs")].map(identity).to_vec()
    }

    /// Watches anew when a folder was replaced. While one is missing there is nothing to watch.
    fn rearm(&mut self) -> bool {
        let now = self.identities();
        if now == self.watched || now.contains(&None) {
            return false;
        }
        match arm(&self.git_dir, &self.common_dir, &self.signal) {
            Ok(watcher) => {
                self.watcher = watcher;
                self.watched = now;
                true
            }
            Err(error) => {
                tracing::warn!(path = %self.git_dir.display(), %error, "cannot watch the repository");
                false
            }
        }
    }
}

fn arm(
    git_dir: &Path,
    common_dir: &Path,
    signal: &mpsc::Sender<Signal>,
) -> Result<RecommendedWatcher, Error> {
    let failed = |source| Error::Unwatchable { path: git_dir.to_owned(), source };
    let signal = signal.clone();
    let forward = move |event| drop(signal.send(Signal::Event(event)));
    let mut watcher = notify::recommended_watcher(forward).map_err(failed)?;
    watcher.watch(git_dir, RecursiveMode::NonRecursive).map_err(failed)?;
    if common_dir != git_dir {
        watcher.watch(common_dir, RecursiveMode::NonRecursive).map_err(failed)?;
    }
    watcher.watch(&common_dir.join("refs"), RecursiveMode::Recursive).map_err(failed)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_spread_around_the_interval() {
        let minute = Duration::from_mins(1);
        let delays: Vec<_> = (0..1000).map(|seed| poll_delay(minute, seed)).collect();
        assert!(
            delays.iter().all(|delay| (Duration::from_secs(54)..=Duration::from_secs(66)).contains(delay))
        );
        assert!(delays.iter().any(|delay| *delay < Duration::from_secs(55)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_secs(65)));
        assert_eq!(poll_delay(minute, 7), poll_delay(minute, 7));
        assert_eq!(poll_delay(Duration::ZERO, 7), Duration::ZERO);
    }
}
