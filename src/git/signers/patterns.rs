//! Pattern lists as OpenSSH reads them (`ssh_config(5)`, PATTERNS): commas, `*`, `?`, and a leading `!` that always wins.

use std::fmt;

/// A list of patterns with at least one that is not negated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns {
    written: String,
}

impl Patterns {
    /// None when no pattern could ever match.
    pub(in crate::git) fn parse(text: &str) -> Option<Self> {
        let positive = text.split(',').any(|pattern| !pattern.is_empty() && !pattern.starts_with('!'));
        positive.then(|| Self { written: text.to_owned() })
    }

    /// True when a pattern matches and no negated one does.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let mut found = false;
        for pattern in self.written.split(',').filter(|pattern| !pattern.is_empty()) {
            match pattern.strip_prefix('!') {
                Some(negated) if wildcard(negated, subject) => return false,
                Some(_) => {}
                None => found |= wildcard(pattern, subject),
            }
        }
        found
    }

    /// The list as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Linear-space matching: only the last `*` is ever tried again, so no input takes exponential time.
fn wildcard(pattern: &str, subject: &str) -> bool {
    let (pattern, subject) = (pattern.as_bytes(), subject.as_bytes());
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < subject.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, s));
                p += 1;
            }
            Some(b'?') => (p, s) = (p + 1, s + 1),
            Some(c) if *c == subject[s] => (p, s) = (p + 1, s + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, s) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_openssh_does() {
        for (pattern, subject, expected) in [
            ("a@x", "a@x", true),
            ("a@x", "A@x", false),
            ("*@x", "a@x", true),
            ("*@x", "a@xy", false),
            ("?@x", "a@x", true),
            ("?@x", "@x", false),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--b--b-d", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(wildcard(pattern, subject), expected, "{pattern} against {subject}");
        }
    }

    #[test]
    fn a_negation_wins_wherever_it_stands() {
        let list = Patterns::parse("*@example.com,!bad@example.com").unwrap();
        assert!(list.matches("good@example.com"));
        assert!(!list.matches("bad@example.com"));
        assert!(!list.matches("good@elsewhere.com"));
        assert_eq!(Patterns::parse("!bad@example.com"), None);
        assert_eq!(Patterns::parse(""), None);
    }
}
