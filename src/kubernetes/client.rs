//! How an API server is reached.

mod crds;

use std::{fmt, io, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Request, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, retry::RetryPolicy},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

pub use crds::{CrdError, check_crds};
use tower::{buffer::BufferLayer, retry::RetryLayer, service_fn};

use super::lease::Fence;
use crate::names::{Namespace, ObjectName};

/// Whose rights count for a request, if not the caller's. Of a service account the API server adds the groups itself.
const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");

/// Longer than a connection to an API server that is there takes.
const CONNECT: Duration = Duration::from_secs(10);

/// Requests that may wait for the connection, as many as in kube's own queue.
const QUEUE: usize = 1024;

/// Which API server.
///
/// Without a file: the one that `KUBECONFIG` names, else the user's own, else the cluster in whose pod this runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; default: its current one.
    pub context: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.context {
            Some(context) => write!(f, "context {context:?} of ")?,
            None => f.write_str("the current context of ")?,
        }
        match &self.kubeconfig {
            Some(file) => write!(f, "the kubeconfig {}", file.display()),
            None => f.write_str("the default kubeconfig"),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is missing or broken, or does not have the context.
    #[error("{target} cannot be used")]
    Kubeconfig {
        /// Which was meant.
        target: Target,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// No API server is named anywhere.
    #[error(
        "no API server is named: there is no kubeconfig, and this does not run in a cluster; give --kubeconfig FILE"
    )]
    Nowhere(#[source] InClusterError),
    /// The credentials or certificates cannot be used.
    #[error("no client can be made for {server}, which {target} names")]
    Client {
        /// Its host and port.
        server: String,
        /// Which was meant.
        target: Target,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Makes a client. Nothing is asked of the API server yet.
///
/// A connection is given up after 10 seconds. An answer may take as long as it takes, because a watch is an answer, too:
/// who asks for something else bounds it. The API server is reached directly, whatever `HTTPS_PROXY` says; a proxy that
/// the kubeconfig names (`proxy-url`) is an error, because there is no support for it.
///
/// # Errors
/// [`Error`], which says which file and context were used.
pub async fn connect(target: &Target) -> Result<Client, Error> {
    let config = settings(target).await?;
    let failed = failed(target, &config);
    Client::try_from(config).map_err(failed)
}

/// The same with a fence: a write goes out only while it is open.
///
/// The fence is the last thing that a request passes, below the repeats after 429 and 503: one that waited for its repeat
/// while the process was frozen does not go out either.
///
/// # Errors
/// As [`connect`].
pub async fn connect_behind(target: &Target, fence: &Fence) -> Result<Client, Error> {
    let mut config = settings(target).await?;
    config.default_retry = false;
    let failed = failed(target, &config);
    let builder = ClientBuilder::try_from(config).map_err(failed)?;
    let repeats = RetryLayer::new(RetryPolicy::server_retry());
    Ok(builder.with_layer(fence).with_layer(&BufferLayer::new(QUEUE)).with_layer(&repeats).build())
}

/// The same connection in the name of a service account: its rights count, not ours, and the audit log of the API server
/// names both. We need the right to impersonate it, and nothing is asked of the API server yet.
///
/// # Panics
/// Outside a tokio runtime.
#[must_use]
pub fn as_account(client: &Client, namespace: &Namespace, name: &ObjectName) -> Client {
    let user = format!("system:serviceaccount:{namespace}:{name}");
    let user = HeaderValue::try_from(user).expect("names are letters, digits and signs");
    let client = client.clone();
    let service = service_fn(move |mut request: Request<Body>| {
        request.headers_mut().insert(IMPERSONATE_USER, user.clone());
        let client = client.clone();
        async move { client.send(request).await }
    });
    Client::new(service, namespace.as_str())
}

async fn settings(target: &Target) -> Result<Config, Error> {
    let mut config = configuration(target).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = None;
    let agent = HeaderValue::from_static(concat!("ostler/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}

fn failed(target: &Target, config: &Config) -> impl FnOnce(kube::Error) -> Error + use<> {
    let server = config.cluster_url.authority().map(without_user).unwrap_or_default();
    let target = target.clone();
    move |source| Error::Client { server, target, source: Box::new(source) }
}

async fn configuration(target: &Target) -> Result<Config, Error> {
    let of_file = |source| Error::Kubeconfig { target: target.clone(), source: Box::new(source) };
    let read = match &target.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Err(error) if *target == Target::default() && is_absent(&error) => {
            return Config::incluster().map_err(Error::Nowhere);
        }
        read => read.map_err(of_file)?,
    };
    let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
    let proxies: Vec<String> =
        kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()?.proxy_url.clone()).collect();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(of_file)?;
    // what is left came out of the environment
    config.proxy_url = config.proxy_url.filter(|url| {
        proxies.iter().any(|proxy| proxy.parse::<http::Uri>().is_ok_and(|proxy| proxy == *url))
    });
    Ok(config)
}

fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(source, _) => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Host and port. What stands before an `@` may be a secret.
fn without_user(authority: &http::uri::Authority) -> String {
    let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", authority.host())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://user:hidden@api.example.com:6443", proxy-url: "PROXY"}}]
users: [{name: u, user: {token: "hidden"}}]
contexts: [{name: there, context: {cluster: c, user: u}}]
current-context: there
"#;

    fn target(folder: &std::path::Path, text: &str, context: Option<&str>) -> Target {
        let file = folder.join("kubeconfig");
        std::fs::write(&file, text).unwrap();
        Target { kubeconfig: Some(file), context: context.map(str::to_owned) }
    }

    #[tokio::test]
    async fn the_error_names_file_and_context() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Target { kubeconfig: Some(folder.path().join("none")), context: None };
        let Err(error) = connect(&missing).await else { panic!("there is no such file") };
        assert!(error.to_string().contains("none"), "{error}");
        assert!(error.source().is_some());
        let no_proxy = KUBECONFIG.replace(", proxy-url: \"PROXY\"", "");
        let Err(error) = connect(&target(folder.path(), &no_proxy, Some("prod"))).await else {
            panic!("there is no such context")
        };
        let text = error.to_string();
        assert!(text.contains("\"prod\"") && text.contains("kubeconfig"), "{text}");
    }

    #[tokio::test]
    async fn a_proxy_is_refused_and_no_secret_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let text = KUBECONFIG.replace("PROXY", "http://proxy.example.com:3128");
        let Err(error) = connect(&target(folder.path(), &text, None)).await else {
            panic!("a proxy is not supported")
        };
        let text = format!("{error} {:?}", error.source());
        assert!(text.contains("api.example.com:6443") && text.contains("proxy"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }

    #[tokio::test]
    async fn nothing_is_asked_yet() {
        let folder = tempfile::tempdir().unwrap();
        let text = KUBECONFIG.replace(", proxy-url: \"PROXY\"", "");
        assert!(connect(&target(folder.path(), &text, Some("there"))).await.is_ok());
    }
}
