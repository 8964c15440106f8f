//! Rules about code repositories, and which runs they bind.

use kube::ResourceExt;

use super::Missing;
use crate::{
    kinds::{Agent, ConfigRepository, HarnessRun, Reason, Session, meta},
    ports::workloads::{Checkout, ContextContent, ContextFile},
    repositories::{Allowed, InvalidPattern},
};

/// Which code repositories one `ConfigRepository` allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    namespace: String,
    name: String,
    uid: Option<String>,
    /// One that cannot be read allows nothing.
    allowed: Result<Allowed, InvalidPattern>,
}

/// The rules of all repositories that have one.
pub fn of_all<'a>(repositories: impl Iterator<Item = &'a ConfigRepository>) -> Vec<Rule> {
    let ruling = repositories.filter(|repository| repository.spec.allowed_repositories().is_some());
    let rule = |repository: &ConfigRepository| Rule {
        namespace: repository.namespace().unwrap_or_default(),
        name: repository.name_any(),
        uid: repository.uid(),
        allowed: Allowed::new(repository.spec.allowed_repositories()),
    };
    ruling.map(rule).collect()
}

/// The rules that bind a run.
///
/// In its own namespace a repository's rule binds every run, whoever made it and wherever it is recorded: annotations and
/// references are written by those whom the rule is for. In other namespaces, where a repository has no more to say than
/// it is let, its rule binds what comes of its own files; there the syncer itself says where an object came from.
pub(super) fn binding<'a>(
    run: &HarnessRun,
    session: Option<&Session>,
    agent: &Agent,
    rules: &'a [Rule],
) -> Vec<&'a Rule> {
    let namespace = run.namespace().unwrap_or_default();
    let origins = [Some(run.annotations()), session.map(ResourceExt::annotations), Some(agent.annotations())];
    let origins: Vec<&String> =
        origins.iter().flatten().filter_map(|all| all.get(meta::SOURCE_UID)).collect();
    let binds = |rule: &&Rule| {
        rule.namespace == namespace || rule.uid.as_ref().is_some_and(|uid| origins.contains(&uid))
    };
    rules.iter().filter(binds).collect()
}

/// Holds everything that a run would clone or push to against the rules.
///
/// # Errors
/// The first repository that a rule does not allow.
pub(super) fn check(
    checkout: Option<&Checkout>,
    contexts: &[ContextFile],
    rules: &[&Rule],
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
fn check_url(url: &str, rules: &[&Rule]) -> Result<(), Missing> {
    for Rule { namespace, name, allowed, .. } in rules {
        let refused = match allowed {
            Ok(allowed) => allowed.check(url).err().map(|refused| refused.in_words()),
            Err(invalid) => Some(format!("{invalid}, so none is allowed: {}", invalid.source)),
        };
        if let Some(why) = refused {
            let message =
                format!("{why} (ConfigRepository {namespace}/{name}, spec.checks.allowedRepositories)");
            return Err(Missing::new(Reason::RepositoryNotAllowed, message));
        }
    }
    Ok(())
}
