//! Writes the workspace and the agent's home, before the agent starts.
//!
//! Nothing here follows a symlink below the workspace or climbs out of it: the checkout is somebody's, and a persistent
//! workspace was in an agent's hands.

mod base;
mod confined;
mod repository;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    control::Given,
    place::{PlaceFile, Rooms},
    sidecar::{Brought, NotStarted, Sidecar},
};
use crate::{
    kinds::Reason,
    names::{CommitId, RepoPath},
    ports::workloads::{ContextContent, ContextFile},
};

pub(super) use confined::Confined;
use repository::Source;

/// Who commits when the agent does, unless its own configuration says otherwise.
const GIT_CONFIG: (&str, &str) = (".gitconfig", "[user]\n\tname = agent\n\temail = agent@ostler.invalid\n");

/// Writes everything; the commit that was checked out. Dropping the future interrupts a clone.
pub(super) async fn write(sidecar: &Arc<Sidecar>, given: Brought) -> Result<Option<CommitId>, NotStarted> {
    struct Interrupt(Arc<AtomicBool>);
    impl Drop for Interrupt {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let interrupt = Interrupt(Arc::default());
    let (sidecar, flag) = (Arc::clone(sidecar), Arc::clone(&interrupt.0));
    let work = move || {
        let given = given.as_ref().as_ref().map_err(NotStarted::from)?;
        let folder = &sidecar.folder;
        let Rooms { workspace, home, .. } = folder.rooms(&sidecar.place);
        let source = Source::of(&sidecar.place, given)?;
        let writer = Writer { place: &sidecar.place, given, source, workspace, interrupt: &flag };
        writer.home(&home)?;
        let base = writer.checkout()?;
        writer.contexts(folder.root())?;
        writer.instructions(folder.root())?;
        Ok(base)
    };
    let written = tokio::task::spawn_blocking(work).await;
    written.unwrap_or_else(|error| Err(NotStarted::because(Reason::PlaceFailed, "the workspace")(error)))
}

/// Paths in the workspace that are ours, as lines of a `.gitignore`.
pub(super) fn own_paths(place: &PlaceFile, instructions: bool) -> Vec<String> {
    let spec = &place.spec;
    let written = spec.instructions.iter().filter(|_| instructions).map(|(path, _)| path);
    spec.contexts
        .iter()
        .map(|context| &context.path)
        .chain(written)
        .map(|path| format!("/{}", escape(path)))
        .collect()
}

/// A path as a pattern that means only itself (gitignore(5)).
fn escape(path: &str) -> String {
    path.chars()
        .flat_map(|c| ['\\'].into_iter().filter(move |_| "*?[]\\! #".contains(c)).chain([c]))
        .collect()
}

/// The file by which we know that the instructions in the workspace are ours.
pub(super) const OWN_INSTRUCTIONS: &str = "own-instructions";

/// Deletes all that is in a folder.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        }?;
    }
    Ok(())
}

struct Writer<'a> {
    place: &'a PlaceFile,
    given: &'a Given,
    source: Source<'a>,
    workspace: PathBuf,
    interrupt: &'a AtomicBool,
}

impl Writer<'_> {
    fn home(&self, home: &Path) -> Result<(), NotStarted> {
        let failed =
            |path: &str| NotStarted::because(Reason::PlaceFailed, format!("the agent's file {path}"));
        let confined =
            Confined::open(home).map_err(NotStarted::because(Reason::PlaceFailed, "the agent's home"))?;
        let mut git = GIT_CONFIG.1.to_owned();
        if self.place.pod().is_some() {
            // A volume's top folder is root's, and Git trusts no work tree of others.
            git.push_str("[safe]\n\tdirectory = *\n");
        }
        let own = [(GIT_CONFIG.0.to_owned(), git)];
        for (path, content) in own.iter().chain(&self.place.spec.home_files) {
            confined.write(path, content.as_bytes(), 0o600).map_err(|error| failed(path)(error))?;
        }
        for (path, value) in &self.given.files {
            confined.write(path, value.expose(), 0o400).map_err(|error| failed(path)(error))?;
        }
        Ok(())
    }

    /// Clones, unless the workspace has a checkout from an earlier run of its session.
    fn checkout(&self) -> Result<Option<CommitId>, NotStarted> {
        let failed = |what| NotStarted::because(Reason::PlaceFailed, what);
        let Some(checkout) = &self.place.spec.checkout else { return Ok(None) };
        let remembered = base::Remembered::of(self.place, &self.workspace);
        if let Some(base) = remembered.as_ref().and_then(base::Remembered::read) {
            return base
                .parse()
                .map(Some)
                .map_err(NotStarted::because(Reason::PlaceFailed, "the base of the workspace"));
        }
        if remembered.is_some() {
            // What an interrupted clone left.
            empty(&self.workspace).map_err(failed("the workspace"))?;
        }
        let base = self.source.check_out(checkout, &self.workspace, self.interrupt)?;
        if let Some(remembered) = remembered {
            remembered.write(base.as_str()).map_err(failed("the base of the workspace"))?;
        }
        Ok(Some(base))
    }

    fn contexts(&self, root: &Path) -> Result<(), NotStarted> {
        let workspace = Confined::open(&self.workspace)
            .map_err(NotStarted::because(Reason::ContextFailed, "the workspace"))?;
        for context in &self.place.spec.contexts {
            let written = self.context(&workspace, root, context);
            match written {
                Err(error) if context.optional => {
                    tracing::warn!(context = context.name, %error, "an optional context is left out");
                }
                written => written?,
            }
        }
        Ok(())
    }

    fn context(&self, workspace: &Confined, root: &Path, context: &ContextFile) -> Result<(), NotStarted> {
        let what = format!("context {}", context.name);
        let failed = |error: io::Error| NotStarted::because(Reason::ContextFailed, what.as_str())(error);
        match &context.content {
            ContextContent::Text(text) => {
                workspace.write(&context.path, text.as_bytes(), context.mode).map_err(failed)
            }
            ContextContent::Git { checkout, path } => {
                let clone = tempfile::Builder::new().prefix("context-").tempdir_in(root).map_err(failed)?;
                self.source.check_out(checkout, clone.path(), self.interrupt)?;
                let path: Option<RepoPath> = path
                    .as_deref()
                    .map(str::parse)
                    .transpose()
                    .map_err(NotStarted::because(Reason::ContextFailed, what.as_str()))?;
                workspace.copy(clone.path(), path.as_ref(), &context.path).map_err(failed)
            }
        }
    }

    /// Only if the checkout has none of its own.
    fn instructions(&self, root: &Path) -> Result<(), NotStarted> {
        let Some((path, text)) = &self.place.spec.instructions else { return Ok(()) };
        let failed = || NotStarted::because(Reason::PlaceFailed, "the instructions");
        let workspace = Confined::open(&self.workspace).map_err(failed())?;
        match workspace.create(path, text.as_bytes(), 0o644) {
            Ok(()) => fs::write(root.join(OWN_INSTRUCTIONS), "").map_err(failed()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(failed()(error)),
        }
    }
}
