//! All integration tests, in one binary.
mod egress;
mod git_write;
mod servers;
