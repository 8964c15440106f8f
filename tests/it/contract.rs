//! Contracts of the ports, written against the ports: every adapter passes them.

pub(crate) mod workloads;
