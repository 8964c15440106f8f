//! Label selectors of the equality form: `a=b`, `a==b`, `a!=b`, `a`, `!a`, joined by commas. Pure.

use std::collections::BTreeMap;

/// Most requirements of one selector.
const MAX: usize = 32;

/// What labels must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    /// # Errors
    /// The part that cannot be read.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX {
            return Err(format!("more than {MAX} requirements"));
        }
        parts.into_iter().map(requirement).collect::<Result<_, _>>().map(Self)
    }

    /// True when all requirements hold.
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Is(key, value) => labels.get(key) == Some(value),
            Requirement::IsNot(key, value) => labels.get(key) != Some(value),
            Requirement::Has(key) => labels.contains_key(key),
            Requirement::HasNot(key) => !labels.contains_key(key),
        })
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let word = |text: &str| {
        let text = text.trim();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        if text.bytes().all(plain) {
            Ok(text.to_owned())
        } else {
            Err(format!("{part:?} is not a=b, a!=b, a or !a"))
        }
    };
    let key = |text: &str| {
        word(text).and_then(|k| if k.is_empty() { Err(format!("{part:?} has no key")) } else { Ok(k) })
    };
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(Requirement::IsNot(key(name)?, word(value)?));
    }
    if let Some((name, value)) = part.split_once('=') {
        return Ok(Requirement::Is(key(name)?, word(value.strip_prefix('=').unwrap_or(value))?));
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(Requirement::HasNot(key(name)?)),
        None => Ok(Requirement::Has(key(part)?)),
    }
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text:?}");
        }
        for bad in ["=x", "app in (a)", "a=b=c", "!"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }
}
