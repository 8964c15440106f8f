//! The ledger: what claims and results look like in Git, and when an entry proves something.
//!
//! Pure: paths, entries, digests, trailers, commit plans and the trust rule. The recorder does the I/O.

pub mod book;
pub mod compose;
pub mod digest;
pub mod entry;
pub mod path;
mod state;
pub mod trailers;
mod view;

pub use book::{Book, Commit, Kept, RunFiles, Touch};
pub use compose::{CommitPlan, Record, compose};
pub use entry::{ClaimEntry, ResultEntry};
pub use path::{File, Place, RunName};
pub use state::State;
pub use view::{Entry, View};
