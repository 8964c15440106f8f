//! The ledger: claims and results as files on a branch. Pure: paths, entries, digests, composition.

pub mod digest;
mod view;

pub use view::{Entry, View};
