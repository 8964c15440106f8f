//! The store over a Unix socket, so that a verb in another process works as if it were in this one.
//!
//! One connection carries one request, a line of JSON, and its answer, a line of JSON; a watch answers with many. Only
//! processes of our own user, or root, are heard.

mod client;
mod server;
mod wire;

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

pub use client::{ConnectError, RemoteStore, connect};
pub use server::{Server, serve};

/// A path to the socket that fits into a socket address (108 bytes on Linux) however deep its folder is, and the handle
/// on the folder that keeps the path good.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let folder = File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, short))
}
