//! Files become objects: parsed, checked and placed, with every mistake told by line and column.
//!
//! A file is one unit: with one error none of its objects counts. [`Files`] keeps what each file said, so that a commit
//! costs only what it changed; [`Desired`] is what all files together ask for.

mod desired;
mod diagnostic;
mod file;
mod files;
mod identity;
mod reference;
mod scalar;
mod scope;
mod spans;
mod yaml;

pub use desired::{Desired, Item};
pub use diagnostic::{Code, Diagnostic, Position, Severity};
pub use file::{Authored, FileOutcome, parse};
pub use files::{Change, Files};
pub use reference::{Reference, Target};
pub use scope::{InvalidPattern, Scope};

/// Most bytes of a file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Most documents of a file.
pub const MAX_DOCUMENTS: usize = 256;
/// Deepest nesting of a document; the deepest kind needs 9.
pub const MAX_DEPTH: usize = 64;
/// Most bytes that a file may become when its aliases are written out.
pub const MAX_EXPANDED_BYTES: usize = 16 << 20;
/// Most bytes of a prompt file; the bound of `task.prompt`.
pub const MAX_PROMPT_BYTES: usize = 64 << 10;
/// Most diagnostics that are kept of one file.
pub const MAX_DIAGNOSTICS: usize = 100;
/// First part of the names of ConfigMaps that are made of prompt files.
pub const PROMPT_PREFIX: &str = "ostler-prompt-";
