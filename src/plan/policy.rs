//! For whom a plan is made and how far it may go.

use kube::ResourceExt;

use crate::{
    kinds::{ConfigRepository, meta},
    names::{CommitId, Uid},
};

/// How much one commit may delete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prune {
    /// False: nothing.
    pub enabled: bool,
    /// The most objects.
    pub max_count: usize,
    /// The greatest share of the source's objects, counted above [`Prune::FRACTION_FROM`] objects.
    pub max_fraction: f64,
}

impl Prune {
    /// With so many objects or fewer, the share does not count: deleting one of two is ordinary.
    pub const FRACTION_FROM: usize = 10;
}

impl Default for Prune {
    fn default() -> Self {
        Self { enabled: true, max_count: 50, max_fraction: 0.5 }
    }
}

/// For whom a plan is made and how far it may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The `ConfigRepository`, as `namespace/name`.
    pub source: String,
    /// Its UID.
    pub uid: Uid,
    /// The commit that the desired state comes from; `None` for a folder.
    pub commit: Option<CommitId>,
    /// How much may be deleted.
    pub prune: Prune,
    /// The commit for which somebody has released the caps.
    pub allow_prune: Option<CommitId>,
}

impl Policy {
    /// The policy of a stored `ConfigRepository`; `None` when it was never stored.
    #[must_use]
    pub fn of(repository: &ConfigRepository, commit: CommitId) -> Option<Self> {
        let default = Prune::default();
        let prune = repository.spec.prune.as_ref().map_or(default, |authored| Prune {
            enabled: authored.enabled.unwrap_or(default.enabled),
            max_count: authored.max_count.map_or(default.max_count, |n| n as usize),
            max_fraction: authored.max_fraction.unwrap_or(default.max_fraction),
        });
        Some(Self {
            source: format!("{}/{}", repository.namespace()?, repository.name_any()),
            uid: repository.uid()?.parse().ok()?,
            commit: Some(commit),
            prune,
            allow_prune: repository.annotations().get(meta::ALLOW_PRUNE).and_then(|text| text.parse().ok()),
        })
    }

    /// True when the caps are released for this very commit.
    #[must_use]
    pub fn released(&self) -> bool {
        self.commit.is_some() && self.commit == self.allow_prune
    }
}
