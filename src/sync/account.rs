//! In whose name a repository's objects are written.

use std::sync::Arc;

use super::{Context, Error};
use crate::{
    kinds::ConfigRepository,
    manifest::Scope,
    names::{Namespace, ObjectName},
    ports::objects::Store,
};

/// The store in the name of a service account of a namespace.
pub type Accounts = Arc<dyn Fn(&Namespace, &ObjectName) -> Store + Send + Sync>;

/// The store by which the plan of a repository is carried out.
pub(super) fn writer(
    repository: &ConfigRepository,
    scope: &Scope,
    context: &Context,
) -> Result<Store, Error> {
    let account = account(repository, scope, context.accounts.is_some())?;
    Ok(match (account, &context.accounts) {
        (Some(name), Some(accounts)) => accounts(scope.default_namespace(), &name),
        _ => context.store.clone(),
    })
}

/// The service account in whose name it is carried out; `None`: our own.
///
/// ostler may write in many namespaces, and whoever makes a `ConfigRepository` perhaps in one. Beyond that one the
/// repository therefore gets as far as a service account of its own namespace does. `in_cluster`: there are such accounts.
fn account(
    repository: &ConfigRepository,
    scope: &Scope,
    in_cluster: bool,
) -> Result<Option<ObjectName>, Error> {
    let home = scope.default_namespace();
    let wrong = |text: String| Err(Error::Spec(text));
    match &repository.spec.service_account_name {
        Some(_) if !in_cluster => {
            wrong("spec.serviceAccountName: there are no service accounts on one machine".to_owned())
        }
        Some(name) => match name.parse() {
            Ok(name) => Ok(Some(name)),
            Err(error) => wrong(format!("spec.serviceAccountName: {error}")),
        },
        None if in_cluster && scope.single() != Some(home) => wrong(format!(
            "spec.allowedNamespaces: beyond {home} a service account is needed that may write there: name one of {home} \
             in spec.serviceAccountName"
        )),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::config_repository::ConfigRepositorySpec;

    fn of(
        account: Option<&str>,
        allowed: &[&str],
        only: Option<&str>,
        in_cluster: bool,
    ) -> Result<String, String> {
        let spec = ConfigRepositorySpec {
            service_account_name: account.map(str::to_owned),
            allowed_namespaces: allowed.iter().map(|name| (*name).to_owned()).collect(),
            ..ConfigRepositorySpec::default()
        };
        let scope = Scope::new("home".parse().unwrap(), &spec.allowed_namespaces).unwrap();
        let scope = scope.limited_to(only.map(|name| name.parse().unwrap()));
        let found = super::account(&ConfigRepository::new("files", spec), &scope, in_cluster);
        found.map(|name| name.map_or_else(|| "ours".to_owned(), |n| n.to_string())).map_err(|e| e.to_string())
    }

    #[test]
    fn beyond_its_namespace_a_repository_needs_an_account() {
        let ours = Ok("ours".to_owned());
        assert_eq!(of(None, &[], None, true), ours);
        assert_eq!(of(Some("applier"), &["*"], None, true), Ok("applier".to_owned()));
        assert_eq!(of(Some("applier"), &[], None, true), Ok("applier".to_owned()));
        let error = of(None, &["home", "other"], None, true).unwrap_err();
        assert!(error.contains("serviceAccountName"), "{error}");
        assert_eq!(of(None, &["home", "other"], Some("home"), true), ours, "nothing else is looked after");
    }

    #[test]
    fn one_machine_belongs_to_one_user_and_has_no_accounts() {
        assert_eq!(of(None, &["*"], None, false), Ok("ours".to_owned()));
        assert!(of(Some("applier"), &[], None, false).is_err());
        assert!(of(Some("not/a name"), &[], None, true).is_err());
    }
}
