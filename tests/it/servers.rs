//! Real servers and programs for tests, each on a port or in a folder of its own; dropped, they end.

#![allow(clippy::unwrap_used, dead_code, reason = "for all tests, not each needs all")]

pub(crate) mod closed;
pub(crate) mod git_http;
pub(crate) mod model;
pub(crate) mod pi;
pub(crate) mod repo;
pub(crate) mod ssh;
