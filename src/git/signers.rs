//! The OpenSSH `allowed_signers` format (ssh-keygen(1), ALLOWED SIGNERS): who may sign, with which key, for what and when.
//!
//! Pure: the time zone of times written without `Z` and the moment of a look-up are inputs.

mod patterns;
mod time;

pub use patterns::Patterns;

use jiff::{Timestamp, tz::TimeZone};
use ssh_key::{PublicKey, public::KeyData};

/// Lines that a file may have; a key set larger than this is a mistake.
pub const MAX_LINES: usize = 10_000;

/// Why one line of an `allowed_signers` file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Line number, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: Reason,
}

/// The kinds of mistakes in a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The line has principals but no key.
    #[error("expected: principals [options] key-type base64-key [comment]")]
    TooFewFields,
    /// A double quote is opened and never closed.
    #[error("a double quote is not closed")]
    Quote,
    /// The principals are empty or hold only negations.
    #[error("principals need at least one pattern that is not negated")]
    Principals,
    /// An option that OpenSSH does not know.
    #[error("unknown option `{0}`")]
    UnknownOption(String),
    /// An option that is given twice.
    #[error("option `{0}` is given twice")]
    Twice(&'static str),
    /// An option without its quoted value.
    #[error("option `{0}` needs a value in double quotes")]
    Value(&'static str),
    /// A time that is neither `YYYYMMDD[Z]` nor `YYYYMMDDHHMM[SS][Z]`.
    #[error("`{0}` is not a time of the form YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]")]
    Time(String),
    /// `valid-before` is not later than `valid-after`.
    #[error("valid-before is not later than valid-after")]
    EmptyValidity,
    /// Certificates are not supported; reading the line as a plain key would grant something else.
    #[error("cert-authority is not supported: list the signing keys themselves")]
    CertAuthority,
    /// The key does not decode.
    #[error("the key is not a valid OpenSSH public key")]
    Key,
    /// More than [`MAX_LINES`] lines.
    #[error("more than {MAX_LINES} lines")]
    TooLong,
}

/// One accepted line.
#[derive(Debug, Clone)]
pub struct Signer {
    principals: Patterns,
    namespaces: Option<Patterns>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
    key: PublicKey,
}

impl Signer {
    /// The principals as written: a list of patterns.
    #[must_use]
    pub fn principals(&self) -> &Patterns {
        &self.principals
    }

    /// The key of the line.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Both bounds are inclusive, as in OpenSSH.
    fn valid(&self, namespace: &str, at: Timestamp) -> bool {
        self.namespaces.as_ref().is_none_or(|list| list.matches(namespace))
            && self.valid_after.is_none_or(|from| at >= from)
            && self.valid_before.is_none_or(|until| at <= until)
    }
}

/// The accepted lines of a file, in order.
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners {
    signers: Vec<Signer>,
}

impl AllowedSigners {
    /// Reads a whole file. `zone` gives meaning to times that do not end in `Z`, which OpenSSH reads as local time.
    ///
    /// Errors: every refused line. A file with one bad line is refused as a whole: half a key set is a surprise.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, Vec<LineError>> {
        let mut signers = Vec::new();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let fail = |reason| LineError { line: number, reason };
            if number > MAX_LINES {
                errors.push(fail(Reason::TooLong));
                break;
            }
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(line, zone) {
                Ok(signer) => signers.push(signer),
                Err(reason) => errors.push(fail(reason)),
            }
        }
        if errors.is_empty() { Ok(Self { signers }) } else { Err(errors) }
    }

    /// The accepted lines.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// The principals of the first line that lets `key` sign for `namespace` at this moment.
    #[must_use]
    pub fn find(&self, key: &KeyData, namespace: &str, at: Timestamp) -> Option<&Patterns> {
        self.lines_for(key, namespace, at).next().map(|signer| &signer.principals)
    }

    /// True when some line lets `key` sign as exactly this `identity` (such as a committer's address).
    #[must_use]
    pub fn allows(&self, identity: &str, key: &KeyData, namespace: &str, at: Timestamp) -> bool {
        self.lines_for(key, namespace, at).any(|signer| signer.principals.matches(identity))
    }

    /// True when the key is listed at all, whatever its namespaces and times.
    #[must_use]
    pub fn lists(&self, key: &KeyData) -> bool {
        self.signers.iter().any(|signer| signer.key.key_data() == key)
    }

    fn lines_for(&self, key: &KeyData, namespace: &str, at: Timestamp) -> impl Iterator<Item = &Signer> {
        self.signers.iter().filter(move |signer| signer.key.key_data() == key && signer.valid(namespace, at))
    }
}

fn parse_line(line: &str, zone: &TimeZone) -> Result<Signer, Reason> {
    let (principals, rest) = principals(line)?;
    if rest.is_empty() {
        return Err(Reason::TooFewFields);
    }
    let (options, key) = if let Some(key) = public_key(rest) {
        (Options::default(), key)
    } else {
        let (options, rest) = split_options(rest)?;
        let options = Options::parse(options, zone)?;
        if rest.is_empty() {
            return Err(Reason::TooFewFields);
        }
        (options, public_key(rest).ok_or(Reason::Key)?)
    };
    Ok(Signer {
        principals: Patterns::parse(principals).ok_or(Reason::Principals)?,
        namespaces: options.namespaces,
        valid_after: options.valid_after,
        valid_before: options.valid_before,
        key,
    })
}

/// The first field, which may be quoted as a whole, and what follows.
fn principals(line: &str) -> Result<(&str, &str), Reason> {
    let (field, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or(Reason::Quote)?,
        None => line.split_once([' ', '\t']).ok_or(Reason::TooFewFields)?,
    };
    Ok((field, rest.trim_start_matches([' ', '\t'])))
}

/// Options end at the first blank outside quotes; a backslash keeps a quote inside one.
fn split_options(text: &str) -> Result<(&str, &str), Reason> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if quoted && !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok((&text[..at], text[at..].trim_start_matches([' ', '\t']))),
            _ => {}
        }
        escaped = false;
    }
    if quoted { Err(Reason::Quote) } else { Ok((text, "")) }
}

/// `key-type base64 [comment]`.
fn public_key(text: &str) -> Option<PublicKey> {
    let mut fields = text.split([' ', '\t']).filter(|field| !field.is_empty());
    let (kind, body) = (fields.next()?, fields.next()?);
    PublicKey::from_openssh(&format!("{kind} {body}")).ok()
}

#[derive(Debug, Default)]
struct Options {
    namespaces: Option<Patterns>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Options {
    fn parse(mut text: &str, zone: &TimeZone) -> Result<Self, Reason> {
        let mut options = Self::default();
        while !text.is_empty() {
            let end = text.find(['=', ',']).unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            text = match name.to_ascii_lowercase().as_str() {
                "cert-authority" => return Err(Reason::CertAuthority),
                "namespaces" => {
                    let (value, rest) = value("namespaces", rest)?;
                    let list = Patterns::parse(&value).ok_or(Reason::Value("namespaces"))?;
                    once("namespaces", &mut options.namespaces, list)?;
                    rest
                }
                "valid-after" => {
                    let (value, rest) = value("valid-after", rest)?;
                    once("valid-after", &mut options.valid_after, moment(value, zone)?)?;
                    rest
                }
                "valid-before" => {
                    let (value, rest) = value("valid-before", rest)?;
                    once("valid-before", &mut options.valid_before, moment(value, zone)?)?;
                    rest
                }
                _ => return Err(Reason::UnknownOption(name.chars().take(64).collect())),
            };
        }
        match (options.valid_after, options.valid_before) {
            (Some(after), Some(before)) if before <= after => Err(Reason::EmptyValidity),
            _ => Ok(options),
        }
    }
}

fn once<T>(name: &'static str, slot: &mut Option<T>, value: T) -> Result<(), Reason> {
    match slot.replace(value) {
        Some(_) => Err(Reason::Twice(name)),
        None => Ok(()),
    }
}

fn moment(text: String, zone: &TimeZone) -> Result<Timestamp, Reason> {
    time::parse(&text, zone).ok_or(Reason::Time(text))
}

/// Reads `="value"` and the comma behind it; gives the value and what follows.
fn value<'a>(name: &'static str, text: &'a str) -> Result<(String, &'a str), Reason> {
    let body = text.strip_prefix("=\"").ok_or(Reason::Value(name))?;
    let mut out = String::new();
    let mut chars = body.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                out.push('"');
                chars.next();
            }
            '"' => {
                let rest = &body[at + 1..];
                return match rest.strip_prefix(',') {
                    Some(rest) if !rest.is_empty() => Ok((out, rest)),
                    None if rest.is_empty() => Ok((out, rest)),
                    _ => Err(Reason::Value(name)),
                };
            }
            _ => out.push(c),
        }
    }
    Err(Reason::Quote)
}

#[cfg(test)]
mod tests;
