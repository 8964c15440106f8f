//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking, in its helpers too")]

mod architecture;
mod docs;
mod egress;
mod examples;
mod git_source;
mod git_write;
mod servers;
