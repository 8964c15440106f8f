//! What every adapter of a port must do, written against the port.

pub(crate) mod access;
pub(crate) mod objects;
pub(crate) mod rbac;
pub(crate) mod secrets;
pub(crate) mod workloads;
