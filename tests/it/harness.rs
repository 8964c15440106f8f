//! Runs in real containers: the real program as sidecar, shim and collector, under the real bubblewrap.

mod confinement;
mod ends;
mod lives;
pub(crate) mod pod;
mod results;
mod terminal;
pub(crate) mod world;
