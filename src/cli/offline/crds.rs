//! `ostler crds`: what an API server needs to know of the kinds.

use std::process::ExitCode;

use super::output;
use crate::schema;

/// Arguments of `ostler crds`: none.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    #[expect(clippy::unused_self, reason = "every verb runs the same way")]
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        output::write(&schema::crds_yaml())?;
        Ok(ExitCode::SUCCESS)
    }
}
