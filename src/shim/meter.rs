//! Tells the sidecar of a pod what it cannot see itself: what the processes of the agent's container use.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    memory,
    reaper::others,
    wire::{FromShim, Link, Used},
};

/// Between two looks, at least. A look at many processes takes long, so it is at most a tenth of the time.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells it for as long as the sidecar listens and `alive` says so.
pub(super) fn start(link: Arc<Link>, alive: impl Fn() -> bool + Send + 'static) -> std::io::Result<()> {
    let tell = move || {
        while alive() {
            let began = Instant::now();
            if link.send(&FromShim::Used(look()), &[]).is_err() {
                return;
            }
            thread::sleep(INTERVAL.max(began.elapsed() * 9));
        }
    };
    thread::Builder::new().name("meter".to_owned()).spawn(tell).map(drop)
}

fn look() -> Used {
    let mut used = Used::default();
    for pid in others().unwrap_or_default() {
        let pid = pid.as_raw_nonzero().get();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        used.threads += threads as u64;
        used.memory += memory::own_memory(pid);
    }
    used
}
