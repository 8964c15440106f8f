//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod git_source;
mod git_write;
mod servers;
