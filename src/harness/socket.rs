//! Unix sockets at paths of any length.
//!
//! A socket's address holds at most 107 bytes (unix(7)), a state folder may lie deeper. The way through the folder's
//! descriptor is short.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// Listens at `path`, for this user only, in place of a socket left there by a process that ended.
///
/// # Errors
/// When the folder does not exist or cannot be written.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let (folder, name) = parts(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short(&folder, name))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// When nobody listens.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (folder, name) = parts(path)?;
    UnixStream::connect(short(&folder, name))
}

fn parts(path: &Path) -> io::Result<(fs::File, &std::ffi::OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((fs::File::open(folder)?, name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn short(folder: &fs::File, name: &std::ffi::OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a".repeat(120)).join("b".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s.sock");
        assert!(connect(&path).is_err());
        let _first = bind(&path).unwrap();
        let _second = bind(&path).unwrap();
        connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
