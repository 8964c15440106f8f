//! The egress proxy of a cluster: a real API server, real tokens, real targets. No pod runs: a test writes what a kubelet would.

mod callers;
mod clones;
mod limits;
mod network;
mod program;
mod stage;
mod targets;
