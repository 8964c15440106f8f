//! The command line.

mod columns;
pub mod offline;
pub mod up;
pub mod verify;
