//! `ostler validate`: are all files good?

use std::{fmt, path::Path, process::ExitCode};

use serde::Serialize;

use super::{Output, tree::Choice};
use crate::manifest::{Desired, Diagnostic};

/// Arguments of `ostler validate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, or a revision of the repository; default: the repository's folder.
    #[arg(value_name = "DIR|REV")]
    what: Option<String>,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    choice: Choice,
}

/// What `ostler validate` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    valid: bool,
    files: usize,
    objects: usize,
    foreign: usize,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let desired = match self.what.as_deref() {
            None => self.choice.folder(&self.choice.repository)?,
            Some(folder) if Path::new(folder).is_dir() => self.choice.folder(Path::new(folder))?,
            Some(revision) => {
                let repository = self.choice.open()?;
                self.choice.commit(&repository, repository.resolve(revision)?)?
            }
        };
        let desired = if self.strict { desired.strict() } else { desired };
        let validation = Validation::of(desired);
        self.output.print(&validation)?;
        Ok(ExitCode::from(u8::from(!validation.valid)))
    }
}

impl Validation {
    fn of(desired: Desired) -> Self {
        let errors = desired.diagnostics.iter().filter(|told| told.is_error()).count();
        Self {
            valid: errors == 0,
            files: desired.files,
            objects: desired.objects.len(),
            foreign: desired.foreign,
            errors,
            warnings: desired.diagnostics.len() - errors,
            diagnostics: desired.diagnostics,
        }
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for told in &self.diagnostics {
            writeln!(f, "{told}")?;
        }
        let Self { files, objects, errors, warnings, foreign, .. } = self;
        writeln!(
            f,
            "{files} files, {objects} objects, {errors} errors, {warnings} warnings, {foreign} of other kinds"
        )
    }
}
