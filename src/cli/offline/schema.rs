//! `ostler schema`: JSON Schemas for editors.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use serde_json::Value;

use super::output;
use crate::{kinds::Kind, schema};

/// Arguments of `ostler schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind, by any of its names; default: one schema for all of them.
    #[arg(value_name = "KIND", conflicts_with = "all")]
    kind: Option<String>,
    /// Every schema and the CRDs, as files.
    #[arg(long, requires = "dir")]
    all: bool,
    /// The folder for --all.
    #[arg(long, value_name = "DIR", requires = "all")]
    dir: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(folder) = &self.dir {
            fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
            for (name, text) in files() {
                let file = folder.join(name);
                fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let schema = match &self.kind {
            None => schema::all_json_schemas(),
            Some(name) => {
                let kind = name.parse().ok().or_else(|| Kind::from_typed_name(name));
                schema::json_schema(
                    kind.with_context(|| format!("{name:?} is not a kind that ostler knows"))?,
                )
            }
        };
        output::write(&text(&schema))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// All generated files of `schemas/`, by name.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    let name = |kind: Kind| format!("{}.json", kind.as_str().to_lowercase());
    let mut files: Vec<(String, String)> =
        Kind::ALL.into_iter().map(|kind| (name(kind), text(&schema::json_schema(kind)))).collect();
    files.push(("all.json".to_owned(), text(&schema::all_json_schemas())));
    files.push(("crds.yaml".to_owned(), schema::crds_yaml()));
    files
}

fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}
