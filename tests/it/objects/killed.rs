//! A store whose process is killed while it writes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use futures::{StreamExt, stream::FuturesUnordered};

use super::*;

const CRASH_FOLDER: &str = "OSTLER_TEST_CRASH_FOLDER";

/// The part of [`what_was_answered_survives_a_kill`] that is killed: this very binary, started by that test. On its own
/// it has nothing to do.
#[tokio::test]
async fn child_that_writes_until_killed() {
    let Some(folder) = std::env::var_os(CRASH_FOLDER) else { return };
    let store = open(Path::new(&folder));
    let mut writes = FuturesUnordered::new();
    for n in 0..100_000 {
        let (store, object) = (Arc::clone(&store), agent(&format!("a{}", n % 50), &codex(&format!("i{n}"))));
        writes.push(async move { store.apply(&object, "s", true, None).await.unwrap() });
        if writes.len() >= 8 {
            let written = writes.next().await.unwrap();
            println!("\nwritten {} {}", written.name_any(), number(&written));
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0_usize..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "objects::killed::child_that_writes_until_killed", "--nocapture"])
            .env(CRASH_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let written = lines.filter(|line| line.starts_with("written "));
        for line in written.take(20 + 37 * round) {
            let mut words = line.split(' ').skip(1);
            let (name, version) =
                (words.next().unwrap().to_owned(), words.next().unwrap().parse::<u64>().unwrap());
            let newest = answered.entry(name).or_default();
            *newest = version.max(*newest);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshot = EmbeddedStore::open_read_only(folder.path()).unwrap();
        for (name, version) in &answered {
            let object = snapshot.get(&id(name)).await.unwrap().expect("it was answered");
            assert!(number(&object) >= *version, "{name}: {} is older than {version}", number(&object));
        }
    }
    assert!(answered.len() > 10, "the child wrote");
    let store = open(folder.path());
    let next = store.create(&agent("z", &codex("i1")), "m").await.unwrap();
    assert!(answered.values().all(|version| *version < number(&next)));
}
