//! The command line.

mod columns;
pub mod up;
