//! What every adapter of a port must do, written against the port.

pub(crate) mod objects;
pub(crate) mod workloads;
