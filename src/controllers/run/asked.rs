//! Whom we have asked to stop, so that nobody is asked, and nothing audited, at each look until the agent has ended.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{names::Uid, ports::workloads::StopReason};

/// What was asked and heard, by run.
///
/// A sidecar that heard it either ends its agent or dies with it. Only the elected controller asks; after a restart it asks
/// once more, which changes nothing.
#[derive(Debug, Default)]
pub(in crate::controllers) struct Asked(Mutex<BTreeMap<Uid, StopReason>>);

impl Asked {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, StopReason>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when this was asked for the same reason.
    pub(super) fn was(&self, run: &Uid, reason: StopReason) -> bool {
        self.lock().get(run) == Some(&reason)
    }

    /// Remembers that it was heard; forgets runs that do not exist any more.
    pub(super) fn heard(&self, run: &Uid, reason: StopReason, exists: impl Fn(&Uid) -> bool) {
        let mut asked = self.lock();
        asked.retain(|other, _| exists(other));
        asked.insert(run.clone(), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_asked_for_once_and_runs_that_are_gone_are_forgotten() {
        let asked = Asked::default();
        let (a, b): (Uid, Uid) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(!asked.was(&a, StopReason::StopRequested));
        asked.heard(&a, StopReason::StopRequested, |_| true);
        assert!(asked.was(&a, StopReason::StopRequested) && !asked.was(&a, StopReason::Removed));
        asked.heard(&b, StopReason::Removed, |uid| *uid == b);
        assert!(!asked.was(&a, StopReason::StopRequested));
        assert_eq!(asked.lock().len(), 1);
    }
}
