//! The coding agent pi, from npm.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "@mariozechner/pi-coding-agent@0.73.1";

/// The path of the program; installs it below the build folder if it is not there.
pub(crate) fn program() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let installed = cache.join("pi-0.73.1");
    let program = installed.join("node_modules/.bin/pi");
    fs::create_dir_all(cache).unwrap();
    // Tests of several processes may want it at once; the lock goes with the file handle.
    let lock = File::create(cache.join("pi.lock")).unwrap();
    lock.lock().unwrap();
    if !program.exists() {
        let fresh = tempfile::tempdir_in(cache).unwrap();
        let install = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(fresh.path())
            .arg(PACKAGE)
            .output()
            .expect("npm is needed to install pi");
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let _ = fs::remove_dir_all(&installed);
        fs::rename(fresh.keep(), &installed).unwrap();
    }
    program
}
