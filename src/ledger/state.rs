//! What is known of a ledger as a whole.

use super::View;
use crate::names::CommitId;

/// The ledger, as far as anybody can say. Only `Ready` proves anything, also that a name is unused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was not read yet.
    Unread,
    /// Read and verified up to `tip`.
    Ready {
        /// Its entries.
        view: View,
        /// The last commit; `None`: the branch does not exist yet.
        tip: Option<CommitId>,
    },
    /// It cannot be read or written for now; the text says why and what to do.
    Unavailable(String),
    /// It does not descend from the tip that was seen before.
    Rewritten(String),
    /// Its remote refuses our push; the text says why and what to do.
    NotPushable(String),
    /// There is no ledger: nothing is recorded in Git.
    None,
}

impl State {
    /// The entries, when they count.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match self {
            Self::Ready { view, .. } => Some(view),
            _ => None,
        }
    }
}
