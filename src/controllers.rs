//! The controllers of sessions and runs: observe, validate, plan, apply, status.

pub mod cache;
mod context;
pub mod run;
pub mod session;

pub use cache::Caches;
pub use context::{Clock, Context, Error};
