//! Collects in the agent's own container, through folders that the sidecar sees, too.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    TIME,
    inside::{FOUND, WORK, Work},
};
use crate::{
    harness::{agent::Cage, sidecar::Sidecar},
    report::BULK,
    shim::wire::Collect,
};

/// How the agent sees its temporary files.
const TMP: &str = "/tmp";
/// Room beside what the artifacts and the workspace may have.
const ROOM: u64 = 64 << 20;

/// Has the shim collect, and takes over what was found.
pub(super) async fn collect(sidecar: &Sidecar, cage: &mut Cage, out: &Path, work: &Work) -> io::Result<()> {
    let tmp = sidecar.folder.rooms(&sidecar.place).tmp;
    super::readable(&tmp);
    // Nothing of the agent lives any more that could put anything in its place.
    let folder = tempfile::Builder::new().prefix("ostler-").tempdir_in(&tmp)?;
    fs::write(folder.path().join(WORK), serde_json::to_vec(work)?)?;
    let name = folder.path().file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidData)?;
    let collect =
        Collect { workspace: sidecar.place.spec.workspace_dir.clone(), out: format!("{TMP}/{name}") };
    tokio::time::timeout(TIME, cage.collect(collect)).await??;
    let most = sidecar.place.spec.limits.disk_bytes.value.saturating_add(ROOM);
    let (from, to, artifacts) = (folder.path().to_owned(), out.to_owned(), work.artifacts.len());
    let taken = tokio::task::spawn_blocking(move || take(&from, &to, artifacts, most)).await;
    taken.map_err(io::Error::other)?
}

/// Copies the files that a collector writes, and no others.
fn take(from: &Path, to: &Path, artifacts: usize, mut most: u64) -> io::Result<()> {
    fs::create_dir_all(to.join("artifacts"))?;
    let artifacts = (0..artifacts).map(|number| PathBuf::from("artifacts").join(number.to_string()));
    for name in [FOUND].into_iter().chain(BULK).map(PathBuf::from).chain(artifacts) {
        let path = from.join(&name);
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        most = most.checked_sub(found.len()).filter(|_| found.is_file()).ok_or_else(|| {
            io::Error::other(format!("{} of the collector is not a file, or too large", name.display()))
        })?;
        fs::copy(&path, to.join(&name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_collector_are_taken_and_only_so_many_bytes() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("artifacts")).unwrap();
        for (name, bytes) in [(FOUND, 10), ("artifacts/0", 20), ("artifacts/1", 20), ("other", 1)] {
            fs::write(from.join(name), vec![7; bytes]).unwrap();
        }
        take(&from, &to, 1, 30).unwrap();
        assert!(to.join(FOUND).exists() && to.join("artifacts/0").exists());
        assert!(!to.join("artifacts/1").exists() && !to.join("other").exists());
        assert!(take(&from, &to, 2, 30).is_err(), "too large");
        std::os::unix::fs::symlink("/etc/passwd", from.join("artifacts/2")).unwrap();
        assert!(take(&from, &to, 3, 1 << 20).is_err(), "a link");
    }
}
