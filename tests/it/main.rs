//! All integration tests, in one binary.
mod git_write;
