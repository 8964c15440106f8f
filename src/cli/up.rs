//! `ostler up`: every role in one process on one machine.

mod idle;
pub mod settings;
pub mod state_folder;

pub use settings::UpArgs;
