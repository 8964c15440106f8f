//! Rules about code repositories that hold in a namespace, whoever made the run.

use kube::ResourceExt;

use super::Missing;
use crate::{
    kinds::{ConfigRepository, Reason},
    manifest::Scope,
    names::Namespace,
    ports::workloads::{Checkout, ContextContent, ContextFile},
    repositories::{Allowed, InvalidPattern},
};

/// Which code repositories one `ConfigRepository` allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose rule it is: `namespace/name`.
    of: String,
    /// One that cannot be read allows nothing.
    allowed: Result<Allowed, InvalidPattern>,
}

/// The rules of every repository that may write to a namespace.
///
/// Neither where an object came from nor where it is recorded counts: annotations and references are written by those
/// whom the rules are for. A repository whose own namespaces cannot be read may write anywhere, as far as we know.
pub fn in_force<'a>(namespace: &str, repositories: impl Iterator<Item = &'a ConfigRepository>) -> Vec<Rule> {
    let ruling = repositories.filter(|repository| {
        repository.spec.allowed_repositories().is_some() && may_write_to(repository, namespace)
    });
    let rule = |repository: &ConfigRepository| Rule {
        of: format!("{}/{}", repository.namespace().unwrap_or_default(), repository.name_any()),
        allowed: Allowed::new(repository.spec.allowed_repositories()),
    };
    ruling.map(rule).collect()
}

fn may_write_to(repository: &ConfigRepository, namespace: &str) -> bool {
    let own = repository.namespace().unwrap_or_default().parse::<Namespace>();
    let (Ok(own), Ok(namespace)) = (own, namespace.parse()) else { return true };
    Scope::new(own, &repository.spec.allowed_namespaces).map_or(true, |scope| scope.allows(&namespace))
}

/// Holds everything that a run would clone or push to against the rules.
///
/// # Errors
/// The first repository that a rule does not allow.
pub(super) fn check(
    checkout: Option<&Checkout>,
    contexts: &[ContextFile],
    rules: &[Rule],
) -> Result<(), Missing> {
    let of_contexts = contexts.iter().filter_map(|context| match &context.content {
        ContextContent::Git { checkout, .. } => Some(checkout),
        ContextContent::Text(_) => None,
    });
    checkout.into_iter().chain(of_contexts).try_for_each(|checkout| check_url(&checkout.url, rules))
}

/// Holds one URL against the rules.
///
/// # Errors
/// The first rule that does not allow it.
pub fn check_url(url: &str, rules: &[Rule]) -> Result<(), Missing> {
    for Rule { of, allowed } in rules {
        let refused = match allowed {
            Ok(allowed) => allowed.check(url).err().map(|refused| refused.in_words()),
            Err(invalid) => Some(format!("{invalid}, so none can be used")),
        };
        if let Some(why) = refused {
            let message = format!("{why} (ConfigRepository {of}, spec.checks.allowedRepositories)");
            return Err(Missing::new(Reason::RepositoryNotAllowed, message));
        }
    }
    Ok(())
}
