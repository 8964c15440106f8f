//! What the planner and the controllers need to know of the ledger.

use std::collections::BTreeMap;

use crate::{
    kinds::Phase,
    names::{Namespace, ObjectName, Uid},
};

/// What the ledger says of one run's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which control plane claimed the name.
    pub holder: String,
    /// The UID of the run that the claim is for.
    pub run_uid: Uid,
    /// Digest of the run as its author wrote it.
    pub digest: String,
    /// How it ended; `None`: there is a claim but no result.
    pub outcome: Option<Phase>,
    /// True: the commit that last touched the entry is signed by somebody who counts. An entry without that is a doubt,
    /// not absence.
    pub trusted: bool,
}

/// The entries of one ledger at one commit, by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    entries: BTreeMap<Namespace, BTreeMap<ObjectName, Entry>>,
}

impl View {
    /// The entry of a run's name.
    #[must_use]
    pub fn entry(&self, namespace: &Namespace, name: &ObjectName) -> Option<&Entry> {
        self.entries.get(namespace)?.get(name)
    }

    /// Sets an entry; the former one, if any, is returned.
    pub fn insert(&mut self, namespace: Namespace, name: ObjectName, entry: Entry) -> Option<Entry> {
        self.entries.entry(namespace).or_default().insert(name, entry)
    }

    /// Every entry, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Namespace, &ObjectName, &Entry)> {
        self.entries
            .iter()
            .flat_map(|(namespace, runs)| runs.iter().map(move |(name, entry)| (namespace, name, entry)))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.values().map(BTreeMap::len).sum()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromIterator<(Namespace, ObjectName, Entry)> for View {
    fn from_iter<I: IntoIterator<Item = (Namespace, ObjectName, Entry)>>(entries: I) -> Self {
        let mut view = Self::default();
        for (namespace, name, entry) in entries {
            view.insert(namespace, name, entry);
        }
        view
    }
}
