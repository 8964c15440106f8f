//! How answers are printed.

use std::{fmt, io::Write as _};

use serde::Serialize;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

impl Output {
    /// Prints an answer on standard output. A reader that has heard enough is no error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(self, answer: &(impl Serialize + fmt::Display)) -> anyhow::Result<()> {
        match self {
            Self::Text => write(&answer.to_string()),
            Self::Json => write(&format!("{}\n", serde_json::to_string_pretty(answer)?)),
            Self::Yaml => write(&serde_saphyr::to_string(answer)?),
        }
    }
}

/// Writes text on standard output.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
