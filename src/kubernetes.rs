//! The adapters of the ports on a Kubernetes API server.

pub mod access;
pub mod callers;
pub mod client;
pub mod lease;
pub mod network;
pub mod objects;
pub mod secrets;
pub mod workloads;
