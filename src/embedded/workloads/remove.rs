//! The end of a place.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use crate::harness::place::Folder;

/// How long killed processes may take to go.
const KILL_TIME: Duration = Duration::from_secs(10);

/// Ends whatever runs in a place, and deletes it.
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
        // A sidecar that is just starting has written nothing yet; without its folder it ends.
        match delete(folder.root()) {
            // A thread of a killed process may still be at its last write.
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
