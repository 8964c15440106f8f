//! Newtypes for every name, id and path that crosses a boundary.
//!
//! Each is parsed once, at the edge; behind it the value is known to be good.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {why}")]
pub struct InvalidName {
    /// The kind of name expected, with its article.
    pub what: &'static str,
    /// The offending text, cut to 80 characters.
    pub text: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), why }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(why) => Err(InvalidName::new($what, text, why)),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A Kubernetes namespace: an RFC 1123 label, at most 63 characters.
    Namespace,
    "a namespace",
    rfc1123_label
);
name_type!(
    /// The name of an object: an RFC 1123 subdomain. Bounded to 63 characters rather than 253, because it becomes a label
    /// value, a path segment of the ledger and a part of a branch name.
    ObjectName,
    "an object name",
    object_name
);
name_type!(
    /// The UID that the store gave an object; a UUID in both stores, treated as opaque.
    Uid,
    "a UID",
    uid
);
name_type!(
    /// A full SHA-1 object id of a commit, 40 lower-case hexadecimal digits.
    CommitId,
    "a commit id",
    hex40
);
name_type!(
    /// A branch name without `refs/heads/`, by the rules of git-check-ref-format(1).
    BranchName,
    "a branch name",
    branch
);
name_type!(
    /// A path inside a repository: relative, `/`-separated, without `.`, `..` or empty segments, UTF-8, at most 1024 bytes.
    RepoPath,
    "a repository path",
    repo_path
);

impl CommitId {
    /// The first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl BranchName {
    /// The full name of the ref.
    #[must_use]
    pub fn to_ref(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

fn rfc1123_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.bytes().all(inner) {
        return Err("only lower-case letters, digits and '-' are allowed");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("it must start and end with a letter or digit");
    }
    Ok(())
}

fn object_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if text.split('.').any(|label| rfc1123_label(label).is_err()) {
        return Err(
            "only lower-case letters, digits, '-' and '.' are allowed, starting and ending with a letter or digit",
        );
    }
    Ok(())
}

fn uid(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("it must have 1 to 64 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err("only letters, digits and '-' are allowed");
    }
    Ok(())
}

fn hex40(text: &str) -> Result<(), &'static str> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() == 40 && text.bytes().all(digit) {
        Ok(())
    } else {
        Err("40 lower-case hexadecimal digits are needed")
    }
}

fn branch(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 200 {
        return Err("it must have 1 to 200 characters");
    }
    if text.contains("..") || text.contains("@{") || text == "@" || text.contains("//") {
        return Err("'..', '//' and '@{' are not allowed");
    }
    let bad = |c: char| {
        c.is_ascii_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\' | '\u{7f}')
    };
    if text.contains(bad) {
        return Err("spaces, control characters and ~^:?*[\\ are not allowed");
    }
    let bad_segment =
        |s: &str| s.is_empty() || s.starts_with('.') || s.strip_suffix(".lock").is_some() || s.ends_with('.');
    if text.starts_with('-') || text.split('/').any(bad_segment) {
        return Err("no segment may be empty, start with '.', or end with '.' or '.lock'");
    }
    Ok(())
}

fn repo_path(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 1024 {
        return Err("it must have 1 to 1024 bytes");
    }
    if text.contains('\0') || text.split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err("it must be relative, without empty, '.' or '..' segments");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_or_refused() {
        let long = "a".repeat(64);
        let cases: &[(&str, bool)] = &[
            ("a", true),
            ("2026-11-21-fix-login", true),
            ("a.b", true),
            ("", false),
            ("A", false),
            ("-a", false),
            ("a..b", false),
            (&long, false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<ObjectName>().is_ok(), *good, "{text:?}");
        }
        assert!("a.b".parse::<Namespace>().is_err(), "a namespace has no dots");
    }

    #[test]
    fn branches_follow_check_ref_format() {
        for good in ["main", "ostler/results", "a/b.c", "feature-1"] {
            assert!(good.parse::<BranchName>().is_ok(), "{good}");
        }
        for bad in
            ["", "/a", "a/", "a..b", "a b", ".a", "a/.b", "a.lock", "-a", "a~1", "@", "a@{0}", "a//b", "a."]
        {
            assert!(bad.parse::<BranchName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn repository_paths_cannot_leave() {
        for good in ["a", "a/b.yaml", ".github/x"] {
            assert!(good.parse::<RepoPath>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\0b"] {
            assert!(bad.parse::<RepoPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_does_not_deserialize() {
        assert!(serde_json::from_str::<CommitId>("\"xyz\"").is_err());
    }
}
