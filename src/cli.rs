//! The command line.

mod columns;
pub mod offline;
pub mod target;
pub mod up;
pub mod verbs;
pub mod verify;
