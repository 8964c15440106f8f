//! All integration tests, in one binary.

mod egress;
mod git_source;
mod git_write;
mod servers;
