//! The commit from which a session's workspace started, which outlives each of its places.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::Confined;
use crate::harness::place::{Ground, PlaceFile, write_atomically};

/// Its file in the volume of a pod. The agent may write there; whatever it does, the commits that are collected are its own word.
const IN_VOLUME: &str = ".git/ostler-base";
/// Bytes of a commit's name, in either hash.
const BYTES: u64 = 64;

/// Where it is remembered.
pub(super) enum Remembered {
    /// Beside the workspace, out of the agent's reach.
    Beside(PathBuf),
    /// In the workspace: a volume that is all there is.
    Within(PathBuf),
}

impl Remembered {
    /// `None` for a workspace that goes with its place.
    pub(super) fn of(place: &PlaceFile, workspace: &Path) -> Option<Self> {
        match &place.ground {
            Ground::Machine(machine) => {
                machine.workspace.as_ref().map(|workspace| Self::Beside(workspace.with_extension("base")))
            }
            Ground::Pod { .. } => {
                place.spec.persistent_workspace.as_ref().map(|_| Self::Within(workspace.to_owned()))
            }
        }
    }

    /// What was written, if anything was.
    pub(super) fn read(&self) -> Option<String> {
        let text = match self {
            Self::Beside(path) => fs::read_to_string(path).ok()?,
            Self::Within(workspace) => {
                let mut text = String::new();
                let file = Confined::open(workspace).ok()?.read(IN_VOLUME).ok()?;
                file.take(BYTES).read_to_string(&mut text).ok()?;
                text
            }
        };
        Some(text.trim().to_owned())
    }

    /// Remembers it.
    pub(super) fn write(&self, base: &str) -> io::Result<()> {
        match self {
            Self::Beside(path) => write_atomically(path, base.as_bytes()),
            Self::Within(workspace) => Confined::open(workspace)?.write(IN_VOLUME, base.as_bytes(), 0o644),
        }
    }
}
