//! The adapters of the ports on a Kubernetes API server.

pub mod access;
pub mod client;
pub mod lease;
pub mod objects;
pub mod secrets;
pub mod workloads;
