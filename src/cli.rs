//! The command line.

mod columns;
pub mod up;
pub mod verify;
