//! Methods and paths, which only plain HTTP and routes show.

use std::{fmt, str::FromStr};

/// Why a text is not a method or path pattern of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not a method that a rule can name.
    #[error("a method is a word in capitals such as GET, and not CONNECT")]
    Method,
    /// Not a path pattern.
    #[error("a path pattern begins with / and has neither ?, # nor dot segments")]
    Path,
}

/// An HTTP method in capitals (methods are case-sensitive, RFC 9110, 9.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Method(String);

impl Method {
    /// The method's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Method {
    type Err = HttpError;

    fn from_str(text: &str) -> Result<Self, HttpError> {
        let word =
            (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if word && text != "CONNECT" { Ok(Self(text.to_owned())) } else { Err(HttpError::Method) }
    }
}

/// A pattern over a whole path without its query; `*` stands for any run of characters, `/` among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Whether the pattern stands for this path. Ask `is_ambiguous` first.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // The first place that fits leaves most room for what follows, so it is always right.
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

impl FromStr for PathPattern {
    type Err = HttpError;

    fn from_str(text: &str) -> Result<Self, HttpError> {
        let fits = text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic());
        if fits && !text.contains(['?', '#']) && !is_ambiguous(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(HttpError::Path)
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether servers may read this path as another one: dot segments, empty segments, backslashes, and
/// percent-encoded characters that need no encoding or that separate (RFC 3986, 6.2.2). No rule with `paths`
/// opens such a path.
#[must_use]
pub(super) fn is_ambiguous(path: &str) -> bool {
    let odd_segment = path.split('/').any(|s| s == "." || s == ".." || s.starts_with("..;"));
    odd_segment || path.contains('\\') || path.contains("//") || path.split('%').skip(1).any(hides)
}

/// Whether what stands behind a percent sign encodes a character that a server might decode before it
/// looks at the path, or is no encoding at all.
fn hides(encoded: &str) -> bool {
    let byte = encoded.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    byte.is_none_or(|b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/' | b'\\' | b'%' | 0)
    })
}
