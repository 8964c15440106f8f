//! Resolves the secrets of a run, for its sidecar.

use super::Options;
use crate::{
    harness::control::{Denied, GitSecret, Given, Request, Value},
    kinds::Reason,
    ports::{
        secrets::{Error as SecretError, SecretData, SecretUse},
        workloads::{Checkout, ContextContent, Error, PlaceSpec, SecretKey},
    },
};

/// What a sidecar is brought: the run's secrets, or why there are none, and its token in either case.
///
/// # Errors
/// When they are out of reach for now.
pub(super) async fn request(options: &Options, spec: &PlaceSpec) -> Result<Request, Error> {
    let values = match values(options, spec).await {
        Ok(values) => Ok(values),
        Err(Error::Refused { reason, message, .. }) => Err((reason, message)),
        Err(error) => return Err(error),
    };
    let token = (options.tokens)(&spec.run).map_err(|source| Error::Unavailable {
        run: spec.run.clone(),
        what: "make its token",
        source,
    })?;
    let token = Some(Value::from(&token));
    Ok(match values {
        Ok(Values { git, env, files }) => Request::Provide(Box::new(Given { token, git, env, files })),
        Err((reason, message)) => Request::Deny(Box::new(Denied { token, reason, message })),
    })
}

/// Whether all secrets of a run can be had.
///
/// # Errors
/// As for their use: refused, or out of reach.
pub(super) async fn check(options: &Options, spec: &PlaceSpec) -> Result<(), Error> {
    values(options, spec).await.map(drop)
}

struct Values {
    git: Vec<GitSecret>,
    env: Vec<(String, Value)>,
    files: Vec<(String, Value)>,
}

/// All secrets that the run names, each for its use and host.
async fn values(options: &Options, spec: &PlaceSpec) -> Result<Values, Error> {
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
        let data = one(options, spec, secret, SecretUse::Git, host.as_deref()).await?;
        let data = data.into_iter().map(|(key, value)| (key, Value::new(value))).collect();
        git.push(GitSecret { url: checkout.url.clone(), secret: secret.clone(), data });
    }
    Ok(Values {
        git,
        env: keys(options, spec, &spec.secret_env).await?,
        files: keys(options, spec, &spec.secret_files).await?,
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
    options: &Options,
    spec: &PlaceSpec,
    wanted: &[(String, SecretKey)],
) -> Result<Vec<(String, Value)>, Error> {
    let mut values = Vec::with_capacity(wanted.len());
    for (name, SecretKey { secret, key }) in wanted {
        let mut data = one(options, spec, secret, SecretUse::Env, None).await?;
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
    options: &Options,
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
    options.secrets.resolve(&spec.run.namespace, secret, purpose, host).await.map_err(|error| match error {
        SecretError::NotFound { .. } => refused(Reason::SecretNotFound, error),
        SecretError::NotAllowed { .. } | SecretError::Unusable { .. } => {
            refused(Reason::SecretNotAllowed, error)
        }
        SecretError::Forbidden { .. } | SecretError::Unavailable(_) => {
            Error::Unavailable { run: spec.run.clone(), what: "resolving its secrets", source: error.into() }
        }
    })
}
