//! Where the objects of `ostler up` are: in its state folder, or in a cluster.

use std::{os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc};

use super::{
    Error, UpArgs, clock,
    state_folder::{Layout, StateFolder},
};
use crate::{
    embedded::{objects::EmbeddedStore, secrets::SecretFolder},
    kubernetes::{
        access::KubeAccess,
        client::{self, Target},
        lease::{Fence, Lease},
        objects::KubeObjects,
        secrets::KubeSecrets,
    },
    names::Namespace,
    ports::{Secrets, objects::Store},
};

/// The lease of whoever looks after a namespace.
const LEASE: &str = "ostler-up";

/// Objects and secrets.
pub(super) struct Engine {
    pub(super) store: Store,
    /// The cluster in which they are, if they are in one.
    pub(super) client: Option<kube::Client>,
    /// The namespace that is looked after; `None`: all of them.
    pub(super) scope: Option<Namespace>,
    pub(super) secrets: Arc<dyn Secrets>,
    /// Who knows the callers of the cluster.
    pub(super) access: Option<KubeAccess>,
    /// What keeps a second one out.
    pub(super) lease: Option<Lease>,
}

/// Opens the objects, and waits until they are ours alone.
pub(super) async fn open(args: &UpArgs, namespace: Namespace, state: &StateFolder) -> Result<Engine, Error> {
    let layout = state.layout();
    let Some(target) = target(args) else {
        let store = Arc::new(EmbeddedStore::open_with_clock(&layout.objects(), clock())?);
        let secrets = folder(args, layout)?;
        return Ok(Engine { store, client: None, scope: None, secrets, access: None, lease: None });
    };
    let client = client::connect(&target).await.map_err(|e| Error::setup("reach the cluster", e))?;
    client::check_crds(&client).await.map_err(|e| Error::setup("use the cluster's CRDs", e))?;
    let identity = state.holder().to_string();
    let fence = Fence::default();
    let lease = Lease::take(client, namespace.as_str(), LEASE, &identity, fence.clone());
    let lease = lease.await.map_err(|e| Error::setup("become the only one", e))?;
    let client = client::connect_behind(&target, &fence).await;
    let client = client.map_err(|e| Error::setup("reach the cluster", e))?;
    let secrets: Arc<dyn Secrets> = match args.secrets {
        Some(_) => folder(args, layout)?,
        None => Arc::new(KubeSecrets::new(client.clone())),
    };
    let access = Some(KubeAccess::new(client.clone()));
    let store = Arc::new(KubeObjects::new(client.clone()));
    Ok(Engine { store, client: Some(client), scope: Some(namespace), secrets, access, lease: Some(lease) })
}

/// The cluster that was named, if one was.
fn target(args: &UpArgs) -> Option<Target> {
    let named = args.kubeconfig.is_some() || args.context.is_some();
    named.then(|| Target { kubeconfig: args.kubeconfig.clone(), context: args.context.clone() })
}

/// The folder of secrets that was named, or an empty one of the state folder's own.
fn folder(args: &UpArgs, layout: &Layout) -> Result<Arc<dyn Secrets>, Error> {
    let named = layout.named_secrets();
    // the last process may have left one, or this is the first
    let _ = std::fs::remove_file(&named);
    let folder: PathBuf = if let Some(folder) = &args.secrets {
        let linked =
            std::path::absolute(folder).and_then(|folder| std::os::unix::fs::symlink(folder, &named));
        linked.map_err(|e| Error::setup(format!("link {}", named.display()), e))?;
        folder.clone()
    } else {
        let own = layout.secrets();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&own)
            .map_err(|e| Error::setup(format!("make {}", own.display()), e))?;
        own
    };
    let opened = SecretFolder::open(&folder);
    Ok(Arc::new(opened.map_err(|e| Error::setup(format!("open the secrets in {}", folder.display()), e))?))
}
