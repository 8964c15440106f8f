//! The time, as an input.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time. Only the command line knows the wall clock; tests bring their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
