//! The four ports on one machine, without a cluster.

pub mod access;
pub mod objects;
pub mod secrets;
pub mod workloads;
