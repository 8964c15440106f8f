//! End to end: the real program over real repositories, from a push to what it leaves behind.

mod broken;
mod drift;
mod edits;
mod engine;
mod inside;
mod kills;
mod ledger;
pub(crate) mod manifests;
mod memory;
mod pi;
mod refused;
mod ssh;
pub(crate) mod status;
mod turns;
pub(crate) mod up;
mod verify;
mod way;
mod world;
