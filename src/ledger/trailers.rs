//! The trailers of a commit of the ledger (git-interpret-trailers(1)): which runs it speaks of.
//!
//! A commit that speaks of several runs repeats the group; `Ostler-Run` starts each.

use super::RunName;

/// Starts a group: `namespace/name`.
pub const RUN: &str = "Ostler-Run";
/// The run's UID.
pub const RUN_UID: &str = "Ostler-Run-UID";
/// Digest of the run as its author wrote it.
pub const DIGEST: &str = "Ostler-Digest";
/// The commit of the config repository that last changed it.
pub const CONFIG_COMMIT: &str = "Ostler-Config-Commit";

/// What a commit says of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The run.
    pub run: RunName,
    /// Its UID.
    pub uid: String,
    /// Its digest.
    pub digest: String,
    /// Where it came from.
    pub config_commit: Option<String>,
}

impl Group {
    /// The trailers, in order.
    #[must_use]
    pub fn to_trailers(&self) -> Vec<(&'static str, String)> {
        let mut trailers =
            vec![(RUN, self.run.to_string()), (RUN_UID, self.uid.clone()), (DIGEST, self.digest.clone())];
        trailers.extend(self.config_commit.clone().map(|commit| (CONFIG_COMMIT, commit)));
        trailers
    }
}

/// Reads the groups of a message: its last paragraph, when every line of it is a trailer. Incomplete groups are left out.
#[must_use]
pub fn parse(message: &str) -> Vec<Group> {
    let last = message.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let Some(lines) = last.lines().map(|line| line.split_once(": ")).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    let starts = lines.iter().enumerate().filter(|(_, (token, _))| *token == RUN).map(|(at, _)| at);
    let starts: Vec<usize> = starts.chain([lines.len()]).collect();
    starts.windows(2).filter_map(|pair| group(&lines[pair[0]..pair[1]])).collect()
}

fn group(lines: &[(&str, &str)]) -> Option<Group> {
    let value =
        |wanted| lines.iter().find(|(token, _)| *token == wanted).map(|(_, value)| (*value).to_owned());
    Some(Group {
        run: value(RUN)?.parse().ok()?,
        uid: value(RUN_UID)?,
        digest: value(DIGEST)?,
        config_commit: value(CONFIG_COMMIT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(run: &str, config_commit: Option<&str>) -> Group {
        Group {
            run: run.parse().unwrap(),
            uid: "u".into(),
            digest: "v1:a".into(),
            config_commit: config_commit.map(str::to_owned),
        }
    }

    #[test]
    fn groups_are_read_back() {
        let groups = vec![some("a/b", Some("c0")), some("a/c", None)];
        let lines: Vec<String> = groups
            .iter()
            .flat_map(Group::to_trailers)
            .map(|(token, value)| format!("{token}: {value}"))
            .collect();
        assert_eq!(parse(&format!("subject\n\nbody: x\n\n{}\n", lines.join("\n"))), groups);
    }

    #[test]
    fn a_body_is_not_a_trailer() {
        assert_eq!(parse("subject\n\nOstler-Run: a/b\nnot a trailer\n"), []);
        assert_eq!(parse("Ostler-Run: a/b"), [], "without its UID");
        assert_eq!(parse(""), []);
    }
}
