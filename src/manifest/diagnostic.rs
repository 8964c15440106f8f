//! What is told about a file: where, what, how bad.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{names::RepoPath, schema};

/// A place in a file, both counted from 1; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// It is used, and somebody should look.
    Warning,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident: $severity:ident),* $(,)?) => {
        /// What is wrong. A closed list of stable words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            /// The object breaks the schema or a rule of its kind.
            Schema(schema::Code),
            $($(#[$doc])* $name),*
        }

        impl Code {
            /// Every code but those of the schema.
            pub const OWN: &'static [Self] = &[$(Self::$name),*];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::Schema(code) => code.as_str(),
                    $(Self::$name => stringify!($name)),*
                }
            }

            /// How bad it is, unless everything is meant to be strict.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self {
                    Self::Schema(_) => Severity::Error,
                    $(Self::$name => Severity::$severity),*
                }
            }
        }
    };
}

codes! {
    /// The text is not YAML.
    Syntax: Error,
    /// YAML that has no meaning here: tags, keys that are no texts, infinities.
    UnsupportedYaml: Error,
    /// A key stands twice in a map.
    DuplicateKey: Error,
    /// A file, a document or what aliases make of it is too large.
    TooLarge: Error,
    /// The file is not UTF-8.
    NotText: Error,
    /// The kind has no such field.
    UnknownField: Error,
    /// There is no such kind in our group.
    UnknownKind: Error,
    /// A kind of ours under another `apiVersion`.
    WrongApiVersion: Error,
    /// A kind that must not come out of a repository.
    KindNotAllowed: Error,
    /// A name or namespace that is not one.
    InvalidName: Error,
    /// A namespace that this repository may not write to.
    NamespaceNotAllowed: Error,
    /// A code repository that this repository's runs may not use.
    RepositoryNotAllowed: Error,
    /// A label, annotation or name that only ostler sets.
    ReservedName: Error,
    /// The same object stands twice.
    DuplicateObject: Error,
    /// A prompt file that cannot be a prompt.
    BadPrompt: Error,
    /// A run differs from what was claimed under its name.
    SpecChangedAfterRun: Warning,
    /// Something that is referred to is not in the repository.
    DanglingReference: Warning,
    /// A status in a file; it is not used.
    StatusIgnored: Warning,
    /// A word such as `no` that YAML reads as a boolean.
    UnquotedBoolean: Warning,
    /// An image without a digest.
    ImageNotPinned: Warning,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing told about a file.
///
/// Displayed as `path:line:column: code: message`, followed by the line itself and a caret below the column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The file.
    pub path: RepoPath,
    /// Where in it.
    #[serde(flatten)]
    pub at: Position,
    /// How bad.
    pub severity: Severity,
    /// What.
    pub code: Code,
    /// What is wrong and what to do.
    pub message: String,
    /// The line of the file, cut; empty when there is none to show.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// Longest part of a source line that is shown, in characters.
const MAX_SOURCE: usize = 160;

impl Diagnostic {
    /// Tells `code` at a place of a file whose text is `text`.
    #[must_use]
    pub fn new(path: &RepoPath, text: &str, at: Position, code: Code, message: String) -> Self {
        let line = text.lines().nth(at.line as usize - 1).unwrap_or_default();
        let source =
            line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SOURCE).collect();
        Self { path: path.clone(), at, severity: code.severity(), code, message, source }
    }

    /// True for an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The first line alone: `path:line:column: code: message`.
    #[must_use]
    pub fn headline(&self) -> String {
        let Position { line, column } = self.at;
        let warning = if self.is_error() { "" } else { "warning: " };
        format!("{}:{line}:{column}: {warning}{}: {}", self.path, self.code, self.message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if !self.source.is_empty() {
            write!(f, "\n  {}", self.source)?;
            let before = self.at.column as usize - 1;
            if before < MAX_SOURCE {
                write!(f, "\n  {}^", " ".repeat(before))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_column() {
        let path = "a/b.yaml".parse().unwrap();
        let at = Position { line: 2, column: 4 };
        let told = Diagnostic::new(&path, "x: 1\ny: é no\n", at, Code::Syntax, "what".into());
        assert_eq!(told.to_string(), "a/b.yaml:2:4: Syntax: what\n  y: é no\n     ^");
    }
}
