//! From entries to one commit.

use std::collections::BTreeMap;

use super::{
    ClaimEntry, File, ResultEntry, RunName,
    entry::{self, MAX_SUMMARY, cut},
    path::{self, README},
    trailers::Group,
};

/// What the branch's README says.
const README_TEXT: &str = "# Claims and results\n\n\
This branch is written by ostler. Each run of a coding agent leaves two entries here:\n\n\
* `runs/<namespace>/<hh>/<name>/claim.yaml`, before it starts: the name is used, and never runs again;\n\
* `runs/<namespace>/<hh>/<name>/result.yaml` and `summary.md`, after its end;\n\
* `runs/<namespace>/<hh>/<name>/late-result.yaml`, if a run that was given up as lost reported after all.\n\n\
`<hh>` is the first byte of the SHA-256 of the name. `index/<yyyy-mm>.yaml` lists results by the month of their record.\n\
Patches, output, recordings and artifacts are on `refs/ostler/runs/<namespace>/<name>`; `result.yaml` has their digests.\n\n\
An entry proves something only when the commit that last touched it is signed by the recorder's key:\n\
`ostler verify results REPO --signers FILE` checks the whole branch.\n\n\
Do not edit `runs/` and `index/`. Everything else on this branch is left alone.\n";

/// An entry to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Before the start.
    Claim(ClaimEntry),
    /// After the end, with the agent's summary.
    Result(Box<ResultEntry>, String),
    /// The same, when the name has a result already: that the run was lost.
    Late(Box<ResultEntry>, String),
}

impl Record {
    /// The run.
    #[must_use]
    pub fn run(&self) -> &RunName {
        match self {
            Self::Claim(entry) => &entry.run,
            Self::Result(entry, _) | Self::Late(entry, _) => &entry.run,
        }
    }

    fn group(&self) -> Group {
        let (run, uid, digest, commit) = match self {
            Self::Claim(e) => (&e.run, &e.uid, &e.digest, &e.config_commit),
            Self::Result(e, _) | Self::Late(e, _) => (&e.run, &e.uid, &e.digest, &e.config_commit),
        };
        Group {
            run: run.clone(),
            uid: uid.to_string(),
            digest: digest.clone(),
            config_commit: commit.as_ref().map(ToString::to_string),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Claim(entry) => format!("claim {}", entry.run),
            Self::Result(entry, _) => format!("result {}: {} ({})", entry.run, entry.outcome, entry.reason),
            Self::Late(entry, _) => {
                format!("late result {}: {} ({})", entry.run, entry.outcome, entry.reason)
            }
        }
    }
}

/// Everything that a commit of the ledger needs but its parent, people and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPlan {
    /// Paths and their whole new content.
    pub writes: Vec<(String, String)>,
    /// The subject.
    pub subject: String,
    /// The body; empty for one entry.
    pub body: String,
    /// The trailers, in order.
    pub trailers: Vec<(&'static str, String)>,
}

/// The first commit of a branch: the README.
#[must_use]
pub fn first() -> CommitPlan {
    CommitPlan {
        writes: vec![(README.to_owned(), README_TEXT.to_owned())],
        subject: "ledger: begin".to_owned(),
        body: String::new(),
        trailers: Vec::new(),
    }
}

/// Puts entries into one commit. `index` holds the text that each index file has now; one that is missing is empty.
///
/// # Errors
/// [`entry::Error::Unwritable`].
pub fn compose(records: &[Record], index: &BTreeMap<String, String>) -> Result<CommitPlan, entry::Error> {
    let mut writes = Vec::new();
    let mut index_now: BTreeMap<String, String> = BTreeMap::new();
    for record in records {
        match record {
            Record::Claim(entry) => writes.push((entry.run.path(File::Claim), entry.to_yaml()?)),
            // The index lists a run once, by its result.
            Record::Late(entry, summary) => {
                writes.push((entry.run.path(File::Late), entry.to_yaml()?));
                writes.extend(summary_of(entry, summary));
            }
            Record::Result(entry, summary) => {
                writes.push((entry.run.path(File::Result), entry.to_yaml()?));
                writes.extend(summary_of(entry, summary));
                let path = path::index_path(entry.recorded_at);
                let before = || index.get(&path).cloned().unwrap_or_default();
                index_now.entry(path.clone()).or_insert_with(before).push_str(&index_line(entry));
            }
        }
    }
    writes.extend(index_now);
    Ok(CommitPlan {
        writes,
        subject: subject(records),
        body: if records.len() > 1 {
            records.iter().map(|r| r.line() + "\n").collect()
        } else {
            String::new()
        },
        trailers: records.iter().flat_map(|record| record.group().to_trailers()).collect(),
    })
}

fn summary_of(entry: &ResultEntry, summary: &str) -> Option<(String, String)> {
    let text = cut(summary, MAX_SUMMARY);
    (!text.trim().is_empty()).then(|| (entry.run.path(File::Summary), text.to_owned()))
}

/// One line a result, so that the file grows at its end only. Its words need no quoting: names, a UID, words of enums.
fn index_line(entry: &ResultEntry) -> String {
    format!(
        "- {{run: \"{}\", uid: \"{}\", outcome: {}, reason: {}, recordedAt: \"{}\"}}\n",
        entry.run, entry.uid, entry.outcome, entry.reason, entry.recorded_at
    )
}

/// The runs that an index file lists.
#[must_use]
pub fn indexed(text: &str) -> Vec<RunName> {
    let runs = text.lines().filter_map(|line| line.strip_prefix("- {run: \"")?.split_once('"'));
    runs.filter_map(|(run, _)| run.parse().ok()).collect()
}

fn subject(records: &[Record]) -> String {
    if let [one] = records {
        return one.line();
    }
    let claims = records.iter().filter(|r| matches!(r, Record::Claim(_))).count();
    match (claims, records.len() - claims) {
        (claims, 0) => format!("{claims} claims"),
        (0, results) => format!("{results} results"),
        (claims, results) => format!("{claims} claims and {results} results"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{entry::tests, trailers};
    use super::*;

    #[test]
    fn one_entry_names_itself() {
        let plan = compose(&[Record::Claim(tests::claim("team/a"))], &BTreeMap::new()).unwrap();
        assert_eq!(plan.subject, "claim team/a");
        assert_eq!(plan.writes.len(), 1);
        assert_eq!(plan.body, "");
        assert_eq!(plan.trailers[0], (trailers::RUN, "team/a".to_owned()));
    }

    #[test]
    fn many_entries_share_a_commit_and_keep_their_trailers() {
        let result = |run| Record::Result(Box::new(tests::result(run)), "all good".into());
        let records = [Record::Claim(tests::claim("team/a")), result("team/b"), result("team/c")];
        let path = "index/2026-11.yaml".to_owned();
        let old = "- {run: \"team/z\", uid: \"u\"}\n".to_owned();
        let plan = compose(&records, &[(path.clone(), old.clone())].into()).unwrap();
        assert_eq!(plan.subject, "1 claims and 2 results");
        let index = &plan.writes.iter().find(|(p, _)| *p == path).unwrap().1;
        assert!(index.starts_with(&old), "the index only grows");
        let runs: Vec<String> = indexed(index).iter().map(ToString::to_string).collect();
        assert_eq!(runs, ["team/z", "team/b", "team/c"]);
        let message: Vec<String> = plan.trailers.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        assert_eq!(trailers::parse(&format!("x\n\n{}\n", message.join("\n"))).len(), 3);
        let rows: Vec<serde_json::Value> = serde_saphyr::from_str(index).unwrap();
        assert_eq!(rows[1]["outcome"], "Succeeded");
    }

    #[test]
    fn a_late_result_stands_beside_the_first() {
        let late = Record::Late(Box::new(tests::result("team/a")), "done after all".into());
        let plan = compose(&[late], &BTreeMap::new()).unwrap();
        let run: RunName = "team/a".parse().unwrap();
        let paths: Vec<&str> = plan.writes.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [run.path(File::Late), run.path(File::Summary)]);
        assert_eq!(plan.subject, "late result team/a: Succeeded (Completed)");
    }

    #[test]
    fn a_summary_is_capped() {
        let long = "ü".repeat(MAX_SUMMARY);
        let plan =
            compose(&[Record::Result(Box::new(tests::result("team/a")), long)], &BTreeMap::new()).unwrap();
        let (_, summary) = plan.writes.iter().find(|(p, _)| p.ends_with("summary.md")).unwrap();
        assert!(summary.len() <= MAX_SUMMARY && summary.len() > MAX_SUMMARY - 4);
    }
}
