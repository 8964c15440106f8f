//! All integration tests, in one binary.

mod contract;
mod egress;
mod git_source;
mod git_write;
mod objects;
mod servers;
