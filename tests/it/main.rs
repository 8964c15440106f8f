//! All integration tests, in one binary.
mod contract;
mod egress;
mod git_write;
mod harness;
mod servers;
