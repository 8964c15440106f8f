//! The report-status answer: `unpack …`, then `ok NAME` or `ng NAME REASON` for each reference.

use std::collections::HashMap;

use super::{Outcome, Rejection, rejection::sanitize};

/// What the server reported, before it is matched with what we asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// None when the report never came; empty when unpacking went well, else the reason.
    unpack: Option<String>,
    refs: HashMap<String, Option<String>>,
}

impl Status {
    /// Reads the pkt-lines that came on the first band. None when they are cut off or no pkt-lines at all.
    pub(super) fn from_packets(mut bytes: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        while !bytes.is_empty() {
            let length = usize::from_str_radix(std::str::from_utf8(bytes.get(..4)?).ok()?, 16).ok()?;
            if length == 0 {
                return status.complete();
            }
            status.line(bytes.get(4..length)?);
            bytes = &bytes[length..];
        }
        None
    }

    /// Reads plain lines, as they come from a server without side bands.
    pub(super) fn from_lines(bytes: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        bytes.split(|b| *b == b'\n').for_each(|line| status.line(line));
        status.complete()
    }

    fn complete(self) -> Option<Self> {
        self.unpack.is_some().then_some(self)
    }

    fn line(&mut self, line: &[u8]) {
        let line = sanitize(line);
        if let Some(result) = line.strip_prefix("unpack ") {
            self.unpack = Some(if result == "ok" { String::new() } else { result.to_owned() });
        } else if let Some(name) = line.strip_prefix("ok ") {
            self.refs.insert(name.to_owned(), None);
        } else if let Some(rest) = line.strip_prefix("ng ") {
            let (name, reason) = rest.split_once(' ').unwrap_or((rest, "no reason given"));
            self.refs.insert(name.to_owned(), Some(reason.to_owned()));
        }
    }

    /// What became of `name`; a reference the server kept silent about did not move as far as we know.
    pub(super) fn outcome(&self, name: &str, text: &str) -> Outcome {
        match (self.unpack.as_deref(), self.refs.get(name)) {
            (Some(""), Some(None)) => Outcome::Done,
            (_, Some(Some(reason))) => {
                let reason = match self.unpack.as_deref() {
                    Some(why) if !why.is_empty() => format!("{reason}: {why}"),
                    _ => reason.clone(),
                };
                Outcome::Rejected(Rejection::classify(&reason, text))
            }
            (Some(why), _) if !why.is_empty() => {
                Outcome::Rejected(Rejection::Other { reason: format!("unpack: {why}") })
            }
            _ => Outcome::Rejected(Rejection::Other { reason: "the server did not report on it".to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(lines: &[&str]) -> Vec<u8> {
        let lines = lines.iter().map(|line| format!("{:04x}{line}", line.len() + 4));
        (lines.collect::<String>() + "0000").into_bytes()
    }

    #[test]
    fn each_reference_has_its_outcome() {
        let bytes = packets(&["unpack ok\n", "ok refs/heads/a\n", "ng refs/heads/b fetch first\n"]);
        let status = Status::from_packets(&bytes).unwrap();
        assert_eq!(status.outcome("refs/heads/a", ""), Outcome::Done);
        assert_eq!(status.outcome("refs/heads/b", ""), Outcome::Rejected(Rejection::Stale));
        assert!(matches!(status.outcome("refs/heads/c", ""), Outcome::Rejected(Rejection::Other { .. })));
    }

    #[test]
    fn success_needs_the_unpack_line() {
        let status =
            Status::from_packets(&packets(&["unpack index-pack failed\n", "ok refs/heads/a\n"])).unwrap();
        assert!(matches!(status.outcome("refs/heads/a", ""), Outcome::Rejected(_)));
        assert_eq!(Status::from_packets(&packets(&["ok refs/heads/a\n"])), None);
    }

    proptest::proptest! {
        #[test]
        fn a_cut_or_broken_report_is_no_report(cut in 0_usize..40, noise in proptest::collection::vec(0_u8..=255, 0..60)) {
            let whole = packets(&["unpack ok\n", "ok refs/heads/main\n"]);
            proptest::prop_assert_eq!(Status::from_packets(&whole[..cut.min(whole.len() - 4)]), None);
            let _ = Status::from_packets(&noise);
            let _ = Status::from_lines(&noise);
        }
    }
}
