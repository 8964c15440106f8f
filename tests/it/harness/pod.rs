//! Runs in pods, without a node.

mod ends;
mod lives;
mod proof;
mod results;
pub(crate) mod world;
