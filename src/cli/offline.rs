//! Verbs that need neither a cluster nor `ostler up`: they read a folder or the local repository.

mod crds;
mod diff;
mod output;
mod plan;
pub mod schema;
mod tree;
mod validate;

use std::process::ExitCode;

use clap::Subcommand;

pub use output::Output;

/// Verbs that read a folder or the local repository.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check every file; exit code 1 when one has an error.
    Validate(validate::Args),
    /// Show what would happen; exit code 1 when something would.
    Plan(plan::Args),
    /// Show how objects differ between two revisions; exit code 1 when they do.
    Diff(diff::Args),
    /// Print the JSON Schema of a kind, for editors.
    Schema(schema::Args),
    /// Print the CRDs, for `kubectl apply -f -`.
    Crds(crds::Args),
}

impl Command {
    /// Carries it out. Exit codes: 0 valid or the same, 1 invalid or different; an error is the caller's 2.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Validate(args) => args.run(),
            Self::Plan(args) => args.run(),
            Self::Diff(args) => args.run(),
            Self::Schema(args) => args.run(),
            Self::Crds(args) => args.run(),
        }
    }
}
