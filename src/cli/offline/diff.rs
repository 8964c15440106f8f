//! `ostler diff`: how do objects differ?

use std::{collections::BTreeSet, fmt, process::ExitCode};

use gix::diff::blob::{
    Algorithm, InternedInput, UnifiedDiff, diff_with_slider_heuristics,
    unified_diff::{ConsumeHunk, ContextSize, DiffLineKind, HunkHeader},
};
use serde::Serialize;

use super::{Output, plan::Sides, tree::Choice};
use crate::{
    kinds::ObjectId,
    manifest::{Desired, Diagnostic},
};

/// Arguments of `ostler diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `A..B`: from revision A to revision B. One revision: all of it. Default: from HEAD to the files of the folder.
    #[arg(value_name = "A..B|REV")]
    what: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    choice: Choice,
}

/// What `ostler diff` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Differences {
    objects: Vec<Difference>,
    errors: Vec<Diagnostic>,
}

/// One object that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    #[serde(flatten)]
    id: ObjectId,
    before: Option<String>,
    after: Option<String>,
    /// Unified, over the YAML of the objects.
    diff: String,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let sides = Sides::read(self.what.as_deref(), &self.choice)?;
        let before = sides.before.unwrap_or_default();
        let differences = Differences::between(&before, &sides.after)?;
        self.output.print(&differences)?;
        let same = differences.objects.is_empty() && differences.errors.is_empty();
        Ok(ExitCode::from(u8::from(!same)))
    }
}

impl Differences {
    fn between(before: &Desired, after: &Desired) -> anyhow::Result<Self> {
        let ids: BTreeSet<&ObjectId> = before.objects.keys().chain(after.objects.keys()).collect();
        // what a broken file holds is unknown, and not gone
        let unknown = |id: &ObjectId, before: &Desired, after: &Desired| {
            let file = before.objects.get(id).map(|item| &item.path);
            !after.objects.contains_key(id)
                && after.failed.iter().any(|(path, names)| Some(path) == file || names.contains(id))
        };
        let mut objects = Vec::new();
        for id in ids {
            let (old, new) = (yaml(before, id)?, yaml(after, id)?);
            if old != new && !unknown(id, before, after) {
                let diff = unified(old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default());
                objects.push(Difference { id: id.clone(), before: old, after: new, diff });
            }
        }
        let errors = after.diagnostics.iter().filter(|told| told.is_error()).cloned().collect();
        Ok(Self { objects, errors })
    }
}

fn yaml(desired: &Desired, id: &ObjectId) -> anyhow::Result<Option<String>> {
    Ok(desired.objects.get(id).map(|item| serde_saphyr::to_string(item.value())).transpose()?)
}

fn unified(before: &str, after: &str) -> String {
    let input = InternedInput::new(before, after);
    let diff = diff_with_slider_heuristics(Algorithm::Histogram, &input);
    let hunks = UnifiedDiff::new(&diff, &input, Hunks(String::new()), ContextSize::symmetrical(3));
    hunks.consume().expect("a text takes every hunk")
}

/// Hunks as text.
struct Hunks(String);

impl ConsumeHunk for Hunks {
    type Out = String;

    fn consume_hunk(&mut self, header: HunkHeader, lines: &[(DiffLineKind, &[u8])]) -> std::io::Result<()> {
        let HunkHeader { before_hunk_start, before_hunk_len, after_hunk_start, after_hunk_len } = header;
        let place =
            format!("@@ -{before_hunk_start},{before_hunk_len} +{after_hunk_start},{after_hunk_len} @@\n");
        self.0.push_str(&place);
        for (kind, line) in lines {
            let sign = match kind {
                DiffLineKind::Context => ' ',
                DiffLineKind::Add => '+',
                DiffLineKind::Remove => '-',
            };
            self.0.push(sign);
            self.0.push_str(String::from_utf8_lossy(line).trim_end_matches('\n'));
            self.0.push('\n');
        }
        Ok(())
    }

    fn finish(self) -> String {
        self.0
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for told in &self.errors {
            writeln!(f, "{told}")?;
        }
        for Difference { id, before, after, diff } in &self.objects {
            let name = |there: bool| if there { id.to_string() } else { "/dev/null".to_owned() };
            write!(f, "--- {}\n+++ {}\n{diff}", name(before.is_some()), name(after.is_some()))?;
        }
        Ok(())
    }
}
