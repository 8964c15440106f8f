//! Which namespaces a repository may write to, and which code repositories its runs may use.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::{names::Namespace, repositories::Allowed};

/// A glob that is none.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is not a pattern of namespaces")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// Why.
    #[source]
    pub source: globset::Error,
}

/// Which namespaces a repository may write to, and which one is meant where a file names none; and which code repositories
/// its files may name.
#[derive(Debug, Clone)]
pub struct Scope {
    default: Namespace,
    allowed: Option<GlobSet>,
    only: Option<Namespace>,
    code: Allowed,
}

impl Scope {
    /// A repository in `default` whose `spec.allowedNamespaces` is `patterns`; none allow its own namespace alone.
    ///
    /// # Errors
    /// [`InvalidPattern`] names the pattern.
    pub fn new(default: Namespace, patterns: &[String]) -> Result<Self, InvalidPattern> {
        let invalid = |pattern: &str| {
            let pattern = pattern.to_owned();
            |source| InvalidPattern { pattern, source }
        };
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(Glob::new(pattern).map_err(invalid(pattern))?);
        }
        let allowed = if patterns.is_empty() {
            None
        } else {
            Some(set.build().map_err(invalid(&patterns.join(", ")))?)
        };
        Ok(Self { default, allowed, only: None, code: Allowed::default() })
    }

    /// The same, but nothing outside of one namespace: whoever asks looks after that one alone.
    #[must_use]
    pub fn limited_to(self, only: Option<Namespace>) -> Self {
        Self { only, ..self }
    }

    /// The same, but files may name no other code repositories than these.
    #[must_use]
    pub fn with_code(self, code: Allowed) -> Self {
        Self { code, ..self }
    }

    /// The code repositories that files may name.
    #[must_use]
    pub fn code(&self) -> &Allowed {
        &self.code
    }

    /// The one namespace that the repository may write to; `None`: there may be more.
    #[must_use]
    pub fn single(&self) -> Option<&Namespace> {
        self.only.as_ref().or_else(|| self.allowed.is_none().then_some(&self.default))
    }

    /// The namespace of objects that name none.
    #[must_use]
    pub fn default_namespace(&self) -> &Namespace {
        &self.default
    }

    /// True when the repository may write to it.
    #[must_use]
    pub fn allows(&self, namespace: &Namespace) -> bool {
        let looked_after = self.only.as_ref().is_none_or(|only| only == namespace);
        looked_after
            && match &self.allowed {
                None => *namespace == self.default,
                Some(set) => set.is_match(namespace.as_str()),
            }
    }
}
