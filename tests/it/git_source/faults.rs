//! Processes that die, and what they leave.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ostler::git::{Credential, Error, Limits, Location, Mirror, Remote};

use super::{NEVER, contains, fetch, id, local, main_branch};
use crate::servers::git_http::{Fault, GitHttp, Options};
use crate::servers::repo::Repo;

/// Tells the child which part of this test it plays, and with what.
const CHILD: &str = "OSTLER_TEST_FETCH";

/// The test starts itself as a process that fetches, and kills that in the middle of a pack.
#[test]
fn a_process_killed_in_the_middle_of_a_fetch_leaves_a_mirror_that_goes_on() {
    if let Ok(arguments) = std::env::var(CHILD) {
        let (url, path) = arguments.split_once(' ').unwrap();
        let mirror = Mirror::open_or_init(Path::new(path)).unwrap();
        let remote = Remote::builder(url.parse().unwrap()).timeout(Duration::from_hours(1)).build().unwrap();
        fetch(&mirror, &remote).unwrap();
        return;
    }
    let repo = Repo::with_readme();
    let noise = super::noise(60_000);
    let tip = repo.push(&[("noise", &noise)], "noise");
    let server = GitHttp::start(repo.root(), Options::default());
    // several packets of the side band, each at most 64 KiB: a part of the first one alone would reach nobody
    server.fault(Fault::StallAfter(200_000));
    let path = repo.root().join("mirror");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!(
                "{}::a_process_killed_in_the_middle_of_a_fetch_leaves_a_mirror_that_goes_on",
                &module_path!()[4..]
            ),
        ])
        .env(CHILD, format!("{} {}", server.url("origin.git"), path.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let packs = path.join("objects/pack");
    let half_written = || std::fs::read_dir(&packs).is_ok_and(|mut files| files.next().is_some());
    while !half_written() {
        assert!(child.try_wait().unwrap().is_none(), "the child must hang in the pack");
        std::thread::yield_now();
    }
    assert!(matches!(Mirror::open_or_init(&path), Err(Error::Busy { .. })), "held while the child lives");
    std::fs::write(path.join("shallow.lock"), "").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    server.fault(Fault::None);
    let mirror = Mirror::open_or_init(&path).unwrap();
    assert!(!half_written(), "the half-written pack is swept");
    let remote = Remote::builder(server.url("origin.git").parse().unwrap()).build().unwrap();
    assert_eq!(fetch(&mirror, &remote).unwrap().tips["refs/heads/main"].commit, id(&tip));
}

/// A repository whose server process blocks, because `packed-refs` is a pipe that nobody writes to.
fn blocking() -> Repo {
    let repo = Repo::with_readme();
    let pipe = repo.bare().join("packed-refs");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    repo
}

/// The command line and environment of each of our children that works on `path`.
fn children_with(path: &Path) -> Vec<Vec<u8>> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let Ok(status) = std::fs::read_to_string(process.join("status")) else { continue };
        let ours = status.lines().any(|line| line.strip_prefix("PPid:\t") == Some(own.as_str()));
        let Ok(mut shown) = std::fs::read(process.join("cmdline")) else { continue };
        if ours && contains(&shown, path.to_str().unwrap()) {
            shown.extend(std::fs::read(process.join("environ")).unwrap_or_default());
            found.push(shown);
        }
    }
    found
}

#[test]
fn a_credential_is_in_no_command_line_and_no_environment() {
    let repo = blocking();
    let mirror = Mirror::open_or_init(&repo.root().join("mirror")).unwrap();
    let credential = Credential::Basic { username: "ada".into(), password: "hunter2-canary".into() };
    let remote = Remote::builder(Location::from_path(repo.bare())).credential(credential).build().unwrap();
    let done = AtomicBool::new(false);
    let fetched = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let fetched = fetch(&mirror, &remote);
            done.store(true, Ordering::Release);
            fetched
        });
        let mut children = Vec::new();
        while children.is_empty() && !done.load(Ordering::Acquire) {
            children = children_with(&repo.bare());
        }
        assert!(children.iter().any(|shown| contains(shown, "upload-pack")), "the child was seen");
        assert!(children.iter().all(|shown| !contains(shown, "canary")));
        // An open and closed writer is an empty file for the child, which may look more than once.
        while !done.load(Ordering::Acquire) {
            let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let pipe = repo.bare().join("packed-refs");
            drop(std::fs::File::options().write(true).custom_flags(nonblocking).open(pipe));
        }
        fetching.join().unwrap()
    });
    assert!(fetched.unwrap().changed);
    assert!(!contains(&super::contents(mirror.path()), "canary"));
}

#[test]
fn a_local_server_process_that_hangs_is_ended() {
    let repo = blocking();
    let mirror = Mirror::open_or_init(&repo.root().join("mirror")).unwrap();
    let hurried = Remote::builder(Location::from_path(repo.bare())).timeout(Duration::from_millis(200));
    let error = fetch(&mirror, &hurried.build().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(children_with(&repo.bare()).is_empty());

    let interrupt = AtomicBool::new(true);
    let error =
        mirror.fetch(&local(&repo.bare()), &main_branch(), &Limits::default(), &interrupt).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error:?}");
    assert!(children_with(&repo.bare()).is_empty());
}

#[test]
fn a_corrupt_mirror_is_an_error_and_not_a_panic() {
    let repo = Repo::with_readme();
    let path = repo.root().join("mirror");
    let tip =
        fetch(&Mirror::open_or_init(&path).unwrap(), &local(&repo.bare())).unwrap().tips["refs/heads/main"];
    for file in std::fs::read_dir(path.join("objects/pack")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "pack") {
            let mut bytes = std::fs::read(&file).unwrap();
            let end = bytes.len() - 20;
            bytes[12..end].fill(0xff);
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, bytes).unwrap();
        }
    }
    let mirror = Mirror::open_or_init(&path).unwrap();
    let error = mirror.repository().commit(tip.commit).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let _ = mirror.fetch(&local(&repo.bare()), &main_branch(), &Limits::default(), &NEVER);
}
