//! A folder that no path leads out of: the kernel itself resolves below it, without symlinks (openat2(2)).

use std::{
    fs,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::names::RepoPath;

/// Bytes that may be copied at once.
const COPY_BYTES: u64 = 256 << 20;

/// An open folder.
#[derive(Debug)]
pub(in crate::harness) struct Confined(OwnedFd);

impl Confined {
    /// Opens a folder, which is not a symlink itself.
    pub(in crate::harness) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Writes a file, and makes the folders above it.
    pub(super) fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        self.put(path, content, mode, OFlags::TRUNC)
    }

    /// Writes a file that is not there yet; whatever has its name is left as it is.
    pub(super) fn create(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        self.put(path, content, mode, OFlags::EXCL)
    }

    /// Opens a file for reading.
    pub(in crate::harness) fn read(&self, path: &str) -> io::Result<fs::File> {
        let path = relative(path)?;
        // Without NONBLOCK, a FIFO would wait for a writer.
        Ok(self.resolve(path.as_str(), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?.into())
    }

    fn put(&self, path: &str, content: &[u8], mode: u32, how: OFlags) -> io::Result<()> {
        let path = relative(path)?;
        if let Some((folder, _)) = path.as_str().rsplit_once('/') {
            self.folders(folder)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | how;
        let mut file = fs::File::from(self.resolve(path.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777))
    }

    fn folders(&self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let mut parent = self.0.try_clone()?;
        let mut from = 0;
        for end in ends {
            match rustix::fs::mkdirat(&parent, &path[from..end], Mode::RWXU | Mode::RGRP | Mode::XGRP) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            parent = self.resolve(&path[..end], OFlags::DIRECTORY, Mode::empty())?;
            from = end + 1;
        }
        Ok(())
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve)?)
    }

    /// Copies a file or folder of a checkout to `to`; links and `.git` stay behind.
    pub(super) fn copy(&self, checkout: &Path, from: Option<&RepoPath>, to: &str) -> io::Result<()> {
        let mut left = COPY_BYTES;
        let mut source = checkout.to_owned();
        for part in from.iter().flat_map(|path| path.as_str().split('/')) {
            if source.symlink_metadata()?.is_symlink() {
                return Err(io::Error::other("the path leads through a link"));
            }
            source.push(part);
        }
        self.copy_entry(&source, to, &mut left)
    }

    fn copy_entry(&self, from: &Path, to: &str, left: &mut u64) -> io::Result<()> {
        let found = from.symlink_metadata()?;
        if found.is_file() {
            *left = left.checked_sub(found.len()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("a context has at most {COPY_BYTES} bytes"),
                )
            })?;
            self.write(to, &fs::read(from)?, found.mode())
        } else if found.is_dir() {
            self.folders(to)?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                let name = entry.file_name();
                match name.to_str() {
                    Some(".git") => {}
                    Some(name) => self.copy_entry(&entry.path(), &format!("{to}/{name}"), left)?,
                    None => return Err(io::Error::other("a name is not UTF-8")),
                }
            }
            Ok(())
        } else {
            Ok(())
        }
    }
}

fn relative(path: &str) -> io::Result<RepoPath> {
    path.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_written_below_the_folder_only() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in"), root.path().join("out"));
        fs::create_dir_all(&inside).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("file"), "old").unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("file"), inside.join("link")).unwrap();
        let confined = Confined::open(&inside).unwrap();
        confined.write("a/b/c", b"new", 0o640).unwrap();
        assert_eq!(fs::read(inside.join("a/b/c")).unwrap(), b"new");
        assert_eq!(fs::metadata(inside.join("a/b/c")).unwrap().mode() & 0o777, 0o640);
        for path in ["../out/file", "/etc/x", "folder/file", "link", "a/../../out/x", "", "folder/new/x"] {
            assert!(confined.write(path, b"bad", 0o644).is_err(), "{path}");
        }
        assert!(confined.create("a/b/c", b"again", 0o644).is_err());
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"old");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn copies_leave_links_and_history_behind() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("docs/.git")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("docs/a"), "a").unwrap();
        symlink("/etc/passwd", from.join("docs/link")).unwrap();
        symlink("/etc", from.join("way")).unwrap();
        let confined = Confined::open(&to).unwrap();
        confined.copy(&from, Some(&"docs".parse().unwrap()), "ctx").unwrap();
        let names: Vec<_> =
            fs::read_dir(to.join("ctx")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        assert!(confined.copy(&from, Some(&"way/passwd".parse().unwrap()), "x").is_err());
    }
}
