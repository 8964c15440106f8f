//! Real servers and programs for tests, each on a port or in a folder of its own; dropped, they end.

pub(crate) mod git_http;
pub(crate) mod model;
pub(crate) mod pi;
pub(crate) mod repo;
