//! Resolves the secrets of a run, for its sidecar.

use super::control::{Denied, GitSecret, Given, Request, Value};
use crate::{
    kinds::Reason,
    ports::{
        Secrets,
        secrets::{Error as SecretError, SecretData, SecretUse},
        workloads::{Checkout, ContextContent, Error, PlaceSpec, SecretKey},
    },
};

/// Whose sidecar it is.
#[derive(Debug)]
pub enum Sidecar {
    /// One on this machine. It clones by itself, and knows the recorder by this token.
    OnMachine(Value),
    /// One in a pod. The cluster makes its tokens, and the proxy has the credentials of repositories.
    InPod,
}

/// What a sidecar is brought: the run's secrets, or why there are none, and its token in either case.
///
/// # Errors
/// When they are out of reach for now.
pub async fn request(secrets: &dyn Secrets, spec: &PlaceSpec, sidecar: Sidecar) -> Result<Request, Error> {
    let values = match values(secrets, spec).await {
        Ok(values) => Ok(values),
        Err(Error::Refused { reason, message, .. }) => Err((reason, message)),
        Err(error) => return Err(error),
    };
    let (token, clones) = match sidecar {
        Sidecar::OnMachine(token) => (Some(token), true),
        Sidecar::InPod => (None, false),
    };
    Ok(match values {
        Ok(Values { git, env, files }) => {
            let git = if clones { git } else { Vec::new() };
            Request::Provide(Box::new(Given { token, git, env, files }))
        }
        Err((reason, message)) => Request::Deny(Box::new(Denied { token, reason, message })),
    })
}

/// Whether all secrets of a run can be had.
///
/// # Errors
/// As for their use: refused, or out of reach.
pub async fn check(secrets: &dyn Secrets, spec: &PlaceSpec) -> Result<(), Error> {
    values(secrets, spec).await.map(drop)
}

struct Values {
    git: Vec<GitSecret>,
    env: Vec<(String, Value)>,
    files: Vec<(String, Value)>,
}

/// All secrets that the run names, each for its use and host.
async fn values(secrets: &dyn Secrets, spec: &PlaceSpec) -> Result<Values, Error> {
    let mut git: Vec<GitSecret> = Vec::new();
    for checkout in checkouts(spec) {
        let Some(secret) = &checkout.secret else { continue };
        if git.iter().any(|known| known.secret == *secret && known.url == checkout.url) {
            continue;
        }
        let host = crate::harness::repository_host(&checkout.url).map_err(|message| Error::Refused {
            run: spec.run.clone(),
            reason: Reason::InvalidSpec,
            message,
        })?;
        let data = one(secrets, spec, secret, SecretUse::Git, host.as_deref()).await?;
        let data = data.into_iter().map(|(key, value)| (key, Value::new(value))).collect();
        git.push(GitSecret { url: checkout.url.clone(), secret: secret.clone(), data });
    }
    Ok(Values {
        git,
        env: keys(secrets, spec, &spec.secret_env).await?,
        files: keys(secrets, spec, &spec.secret_files).await?,
    })
}

fn checkouts(spec: &PlaceSpec) -> impl Iterator<Item = &Checkout> {
    let contexts = spec.contexts.iter().filter_map(|context| match &context.content {
        ContextContent::Git { checkout, .. } => Some(checkout),
        ContextContent::Text(_) => None,
    });
    spec.checkout.iter().chain(contexts)
}

async fn keys(
    secrets: &dyn Secrets,
    spec: &PlaceSpec,
    wanted: &[(String, SecretKey)],
) -> Result<Vec<(String, Value)>, Error> {
    let mut values = Vec::with_capacity(wanted.len());
    for (name, SecretKey { secret, key }) in wanted {
        let mut data = one(secrets, spec, secret, SecretUse::Env, None).await?;
        let value = data.remove(key).ok_or_else(|| Error::Refused {
            run: spec.run.clone(),
            reason: Reason::SecretNotFound,
            message: format!("Secret {secret} has no key {key}"),
        })?;
        values.push((name.clone(), Value::new(value)));
    }
    Ok(values)
}

async fn one(
    secrets: &dyn Secrets,
    spec: &PlaceSpec,
    secret: &crate::names::ObjectName,
    purpose: SecretUse,
    host: Option<&str>,
) -> Result<SecretData, Error> {
    let refused = |reason, error: SecretError| Error::Refused {
        run: spec.run.clone(),
        reason,
        message: error.to_string(),
    };
    secrets.resolve(&spec.run.namespace, secret, purpose, host).await.map_err(|error| match error {
        SecretError::NotFound { .. } => refused(Reason::SecretNotFound, error),
        SecretError::NotAllowed { .. } | SecretError::Unusable { .. } => {
            refused(Reason::SecretNotAllowed, error)
        }
        SecretError::Forbidden { .. } | SecretError::Unavailable(_) => {
            Error::Unavailable { run: spec.run.clone(), what: "resolving its secrets", source: error.into() }
        }
    })
}
