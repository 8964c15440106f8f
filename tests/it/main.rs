//! All integration tests, in one binary.
mod egress;
mod servers;
mod git_write;
mod harness;
