//! Brings this program into a container whose image is somebody else's.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

/// The name of the copy.
const NAME: &str = "ostler";

/// Arguments of `ostler harness install`.
#[derive(Debug, Args)]
pub(in crate::harness) struct InstallArgs {
    /// The folder for the copy, which is named `ostler`.
    folder: PathBuf,
}

/// Copies the program that runs.
pub(in crate::harness) fn install(args: &InstallArgs) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("this program")?;
    copy(&program, &args.folder)
        .with_context(|| format!("a copy of this program in {}", args.folder.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(folder = %args.folder.display(), version, "the program is installed");
    Ok(())
}

/// All of it or nothing: an init container may be run again after it was killed.
fn copy(program: &Path, folder: &Path) -> io::Result<()> {
    let mut copy = tempfile::Builder::new()
        .prefix(".ostler-")
        .permissions(fs::Permissions::from_mode(0o555))
        .tempfile_in(folder)?;
    io::copy(&mut fs::File::open(program)?, copy.as_file_mut())?;
    // Whatever the umask says.
    copy.as_file().set_permissions(fs::Permissions::from_mode(0o555))?;
    copy.as_file().sync_all()?;
    copy.persist(folder.join(NAME))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_can_be_executed_and_not_written_and_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        for content in ["one", "the second"] {
            fs::write(&program, content).unwrap();
            let folder = root.path().join("bin");
            fs::create_dir_all(&folder).unwrap();
            copy(&program, &folder).unwrap();
            let copied = folder.join(NAME);
            assert_eq!(fs::read_to_string(&copied).unwrap(), content);
            assert_eq!(fs::metadata(&copied).unwrap().permissions().mode() & 0o777, 0o555);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        }
        assert!(copy(&program, &root.path().join("missing")).is_err());
    }
}
