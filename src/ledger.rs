//! The ledger: claims and results as files on a branch. Pure: paths, entries, digests, composition.

pub mod digest;
mod state;
mod view;

pub use state::State;
pub use view::{Entry, View};
