//! The four ports on one machine, without a cluster.

pub mod workloads;
