//! The end of a place.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::harness::place::Folder;

/// How long killed processes may take to go.
const KILL_TIME: Duration = Duration::from_secs(10);

/// How the names of folders begin that are being deleted.
const GONE: &str = ".gone-";

/// Ends whatever runs in a place, and deletes it. The folder changes its name first: whoever looks meanwhile, or after a
/// crash, sees a place or none, and never a half of one.
pub(super) fn remove(folder: &Folder) -> io::Result<()> {
    let deadline = Instant::now() + KILL_TIME;
    loop {
        if let Some(state) = folder.state().ok().flatten() {
            state.sidecar.kill();
            if let Some(shim) = state.shim {
                shim.kill();
            }
            let alive = state.sidecar.is_alive() || state.shim.is_some_and(|shim| shim.is_alive());
            if alive && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        }
        break;
    }
    let gone = gone(folder.root());
    // Of an earlier removal that did not come to its end.
    delete_by(&gone, deadline)?;
    // A sidecar that is just starting has written nothing yet; without its folder it ends.
    match fs::rename(folder.root(), &gone) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => delete_by(&gone, deadline),
    }
}

/// What the folder of a place is called while it is deleted.
fn gone(root: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(GONE);
    name.extend(root.file_name());
    root.with_file_name(name)
}

/// Folders of removals that did not come to their end.
pub(super) fn leftovers(places: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(places)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Deletes a folder in which something may still be at its last write.
fn delete_by(root: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match delete(root) {
            // A thread of a killed process.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            deleted => return deleted,
        }
    }
}

/// Deletes a folder; modes that an agent set on its own folders do not protect them.
pub(super) fn delete(root: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut folders = vec![root.to_owned()];
            while let Some(folder) = folders.pop() {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
                for entry in fs::read_dir(&folder)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        folders.push(entry.path());
                    }
                }
            }
            fs::remove_dir_all(root)
        }
        result => result,
    }
}
