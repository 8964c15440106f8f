//! The controllers of sessions and runs: observe, validate, plan, apply, status.

pub mod census;
mod context;
mod news;
pub mod run;
pub mod session;
pub mod sweep;

pub use context::{Context, Error};
