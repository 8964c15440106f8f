//! Reading from repositories: fetches over real servers, trees, diffs and watching.

#![allow(clippy::unwrap_used, reason = "what a test builds on fails the test")]

mod faults;
mod fetch;
mod http;
mod tree;
mod watch;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ostler::git::{CommitId, Error, FetchRequest, Fetched, Limits, Location, Mirror, Remote};

use crate::servers::repo::Repo;

/// Nobody interrupts.
static NEVER: AtomicBool = AtomicBool::new(false);

fn local(path: &Path) -> Remote {
    Remote::builder(Location::from_path(path)).build().unwrap()
}

fn main_branch() -> FetchRequest {
    FetchRequest::new().branch("main").unwrap()
}

fn mirror(repo: &Repo) -> Mirror {
    Mirror::open_or_init(&repo.root().join("mirror")).unwrap()
}

fn fetch(mirror: &Mirror, remote: &Remote) -> Result<Fetched, Error> {
    mirror.fetch(remote, &main_branch(), &Limits::default(), &NEVER)
}

fn id(text: &str) -> CommitId {
    text.parse().unwrap()
}

/// Everything that is in the files of a folder, hidden ones included.
fn contents(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.extend(std::fs::read(path).unwrap());
        }
    }
    all
}

/// Text that hardly compresses: 8 bytes for each number.
fn noise(numbers: u64) -> String {
    let hex =
        |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().map(|byte| char::from(byte % 64 + 48));
    (0..numbers).flat_map(hex).collect()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}
