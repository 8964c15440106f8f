//! Parts of a list: which labels, how many, from where on.
//!
//! Label selectors have the equality form: `a=b`, `a==b`, `a!=b`, `a`, `!a`, joined by commas. Keys and values are those
//! that an API server takes, so that a selector that can be read is refused by no store.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::kinds::Object;

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What labels must be.
    pub labels: Labels,
    /// Most objects.
    pub limit: u32,
    /// [`Page::next`] of the page before.
    pub after: Option<String>,
}

/// A part of a list, in the store's order: one namespace after another, in each by name, byte by byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The objects; there may be fewer than the limit, even none, and yet a next page.
    pub objects: Vec<Object>,
    /// Where the next page begins, in words of the store; `None` at the end.
    pub next: Option<String>,
}

/// Most requirements of one selector.
const MAX: usize = 32;

/// What labels must be; by default anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Labels(Vec<Requirement>);

/// A selector that cannot be read, and the part at which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLabels(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl FromStr for Labels {
    type Err = InvalidLabels;

    fn from_str(text: &str) -> Result<Self, InvalidLabels> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX {
            return Err(InvalidLabels(format!("more than {MAX} requirements")));
        }
        parts.into_iter().map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

impl Labels {
    /// True when every object has them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when all requirements hold of labels, which are asked for by key.
    pub fn match_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Is(key, value) => label(key) == Some(value),
            Requirement::IsNot(key, value) => label(key) != Some(value),
            Requirement::Has(key) => label(key).is_some(),
            Requirement::HasNot(key) => label(key).is_none(),
        })
    }
}

/// As it is written, and as an API server takes it.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            match requirement {
                Requirement::Is(key, value) => write!(f, "{key}={value}")?,
                Requirement::IsNot(key, value) => write!(f, "{key}!={value}")?,
                Requirement::Has(key) => write!(f, "{key}")?,
                Requirement::HasNot(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Labels {
    type Error = InvalidLabels;

    fn try_from(text: String) -> Result<Self, InvalidLabels> {
        text.parse()
    }
}

impl From<Labels> for String {
    fn from(labels: Labels) -> Self {
        labels.to_string()
    }
}

fn requirement(part: &str) -> Result<Requirement, InvalidLabels> {
    let refuse = |what: &str| InvalidLabels(format!("{part:?} {what}"));
    let key = |text: &str| {
        let key = text.trim();
        is_key(key).then(|| key.to_owned()).ok_or_else(|| refuse("has no key of a label"))
    };
    let value = |text: &str| {
        let value = text.trim();
        let is_value = value.is_empty() || is_name(value);
        is_value.then(|| value.to_owned()).ok_or_else(|| refuse("is not a=b, a!=b, a or !a"))
    };
    if let Some((name, text)) = part.split_once("!=") {
        return Ok(Requirement::IsNot(key(name)?, value(text)?));
    }
    if let Some((name, text)) = part.split_once('=') {
        return Ok(Requirement::Is(key(name)?, value(text.strip_prefix('=').unwrap_or(text))?));
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(Requirement::HasNot(key(name)?)),
        None => Ok(Requirement::Has(key(part)?)),
    }
}

/// A key: a name, perhaps with a DNS subdomain and `/` in front.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    is_name(name) && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label))
}

/// At most 63 letters, digits and `-_.`, of which the first and the last are letters or digits.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(plain) && ends(bytes.first()) && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn selectors_of_kubectl_are_understood() {
        let labels =
            BTreeMap::from([("app".to_owned(), "web".to_owned()), ("x.io/tier".to_owned(), "a".to_owned())]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,x.io/tier", true),
            ("app!=web", false),
            ("other!=x", true),
            ("!app", false),
            ("!other", true),
            ("other=", false),
            (" app = web , other != x ", true),
        ] {
            let read: Labels = text.parse().unwrap();
            assert_eq!(read.match_by(|key| labels.get(key).map(String::as_str)), expected, "{text:?}");
            assert_eq!(read.to_string().parse::<Labels>().unwrap(), read, "{text:?}: as it is written");
        }
        let long = format!("a={}", "b".repeat(64));
        for bad in ["=x", "app in (a)", "a=b=c", "!", "a/b/c", "A.b/c", "a=b/c", "a=-b", "a=b.", "-a", &long]
        {
            assert!(bad.parse::<Labels>().is_err(), "{bad}");
        }
    }
}
