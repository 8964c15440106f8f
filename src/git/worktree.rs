//! The work tree of a run: made before the agent starts, read after it ended.
//!
//! What the agent leaves is not to be trusted: neither the files nor its `.git`. Reading it runs no program, follows
//! no symlink, uses none of its configuration, and opens nothing but regular files.

mod checkout;
mod collect;
mod filter;
mod ignore;
mod patch;
mod snapshot;
mod view;

pub use checkout::{CheckedOut, Checkout, Error as CheckoutError, Revision};
pub use collect::{
    BUNDLE_FILE, Changes, Collect, Collected, CommitSummary, Error as CollectError, Limits, PATCH_FILE,
};
pub use patch::FileChange;
pub use snapshot::Skipped;
