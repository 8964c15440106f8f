//! A real API server for tests: etcd and kube-apiserver on ports of the loopback, with certificates, RBAC, admission
//! and an audit log. One is shared by all tests of the process; a test that breaks its server starts its own.

#![allow(clippy::unwrap_used, dead_code, unused_imports, reason = "for all tests, not each needs all")]

// of these benches/cluster needs those that are no tests
mod audit;
mod authority;
mod exec;
#[cfg(test)]
#[allow(unused_imports, reason = "in a bench its tests are left out")]
mod fixture;
mod keeper;
mod server;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::version::Info,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions},
};
use ostler::schema;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

pub(crate) use self::{
    audit::{AuditLine, object_writes},
    authority::Authority,
    exec::{Container, Output, exec},
    keeper::Keeper,
    server::{PATIENCE, PAUSE, Server, eventually, path_printed_by},
};

/// Whoever is in this group may do anything.
pub(crate) const MASTERS: &str = "system:masters";

/// An API server and what tests need around it. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Cluster {
    server: Mutex<Server>,
    authority: Authority,
    /// Where the API server listens: `https://127.0.0.1:PORT`.
    url: String,
    folder: PathBuf,
    kubeconfig: PathBuf,
    crds: OnceCell<()>,
}

/// The server of all tests that do not break it. It starts with the first call and ends with the process.
///
/// # Panics
/// When it does not start; then every later call does so, too, at once.
pub(crate) async fn shared() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
        // Not the runtime of the test that happens to come first: it may end before the server is up.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Cluster::start_own())
    });
    tokio::task::spawn_blocking(|| &*SHARED)
        .await
        .expect("the shared test API server did not start; its own panic says why")
}

impl Cluster {
    /// A server for one test, which may break it.
    ///
    /// # Panics
    /// When it does not start, with the last lines of its logs.
    pub(crate) async fn start_own() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = Authority::new();
        let server = Server::start(&authority).await;
        Self::around(server, authority)
    }

    /// The API server of a node that this keeper keeps, at this address of it.
    ///
    /// # Panics
    /// As [`Cluster::start_own`].
    pub(crate) async fn start_on(keeper: Keeper, address: IpAddr) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = Authority::new();
        let server = Server::start_on(keeper, address, &authority).await;
        Self::around(server, authority)
    }

    fn around(server: Server, authority: Authority) -> Self {
        let (url, folder) = (server.url(), server.folder().to_owned());
        let kubeconfig = write_kubeconfig(&folder, &authority, &url, "admin", &[MASTERS]);
        Self { server: Mutex::new(server), authority, url, folder, kubeconfig, crds: OnceCell::new() }
    }

    /// Where the API server listens: `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A client that may do anything. It belongs to the runtime of the caller: each test makes its own.
    pub(crate) async fn client(&self) -> Client {
        client_of(&self.kubeconfig).await
    }

    /// The administrator's kubeconfig; nobody else can read it.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client of a user who may do what RBAC grants this name and these groups (two at most).
    pub(crate) async fn user(&self, name: &str, groups: &[&str]) -> Client {
        client_of(&self.kubeconfig_for(name, groups)).await
    }

    /// The kubeconfig of such a user.
    pub(crate) fn kubeconfig_for(&self, name: &str, groups: &[&str]) -> PathBuf {
        write_kubeconfig(&self.folder, &self.authority, &self.url, name, groups)
    }

    /// A new namespace whose name begins with `prefix`, with the service account that pods need to be admitted.
    pub(crate) async fn namespace(&self, prefix: &str) -> String {
        let client = self.client().await;
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let api: Api<Namespace> = Api::all(client.clone());
        let name = api.create(&PostParams::default(), &namespace).await.unwrap().name_any();
        let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        // With the controller manager, it may be there already: both write the same.
        let patch = PatchParams::apply("tests");
        Api::<ServiceAccount>::namespaced(client, &name)
            .patch("default", &patch, &Patch::Apply(&account))
            .await
            .unwrap();
        name
    }

    /// Our kinds are known and served when this returns. The first call installs them.
    pub(crate) async fn install_crds(&self) {
        self.crds.get_or_init(|| install_crds(self)).await;
    }

    /// What the API server was asked so far, but for its own requests to itself. The line of a request may come a
    /// moment after its answer: who waits for one uses [`Cluster::audit_until`].
    pub(crate) fn audit(&self) -> Vec<AuditLine> {
        audit::read(&self.folder.join(server::AUDIT_LOG))
    }

    /// What it was asked since a byte of the audit log, and the byte to go on from. Read again and again, this is far
    /// cheaper than [`Cluster::audit`].
    pub(crate) fn audit_from(&self, byte: u64) -> (Vec<AuditLine>, u64) {
        audit::read_from(&self.folder.join(server::AUDIT_LOG), byte)
    }

    /// Waits until the audit log is as told, and gives it.
    pub(crate) async fn audit_until(&self, reached: impl Fn(&[AuditLine]) -> bool) -> Vec<AuditLine> {
        server::eventually("the audit log has what the test waits for", async || {
            let lines = self.audit();
            reached(&lines).then_some(lines)
        })
        .await
    }

    /// Kills the API server, as a crash does; etcd stays. Only for a server of one's own.
    pub(crate) async fn stop_api_server(&self) {
        self.server.lock().await.stop_api_server();
    }

    /// Starts it again on its port, with what etcd has, and waits until it is ready.
    pub(crate) async fn start_api_server(&self) {
        self.server.lock().await.start_api_server(&self.authority).await;
    }

    /// Both. Only for a server of one's own.
    pub(crate) async fn restart_api_server(&self) {
        self.stop_api_server().await;
        self.start_api_server().await;
    }

    /// Throws away every state of every object but the newest, as etcd's compaction does. Only for a server of one's own.
    pub(crate) async fn compact(&self) {
        let etcd = self.server.lock().await.etcd_url();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |path: &str, question: Value| -> Value {
            let request = client.post(format!("{etcd}/v3/kv/{path}")).body(question.to_string());
            let answer = request.send().await.unwrap();
            let (code, text) = (answer.status(), answer.text().await.unwrap());
            assert!(code.is_success(), "{path}: {code}: {text}");
            serde_json::from_str(&text).unwrap()
        };
        // a key that is not there: its answer has the newest revision all the same
        let newest = ask("range", json!({"key": "AA=="})).await["header"]["revision"].clone();
        ask("compaction", json!({"revision": newest, "physical": true})).await;
    }

    /// From now on garbage is collected, namespaces end, and service accounts appear.
    pub(crate) async fn start_controllers(&self) {
        let user = self.kubeconfig_for("system:kube-controller-manager", &[MASTERS]);
        self.server.lock().await.start_controllers(&user);
    }

    /// Its processes.
    pub(crate) async fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().await
    }

    /// Who its parts trust.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where its files and logs are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server says of itself.
    pub(crate) async fn server_version(&self) -> Info {
        self.client().await.apiserver_version().await.unwrap()
    }
}

async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn write_kubeconfig(folder: &Path, authority: &Authority, url: &str, name: &str, groups: &[&str]) -> PathBuf {
    let file = tempfile::Builder::new()
        .prefix("user-")
        .suffix(".kubeconfig")
        // Made so that only we can read it.
        .tempfile_in(folder)
        .unwrap();
    std::fs::write(&file, authority.kubeconfig(url, name, groups)).unwrap();
    file.keep().unwrap().1
}

async fn install_crds(cluster: &Cluster) {
    let client = cluster.client().await;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in schema::crds() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await.unwrap();
        await_condition(api.clone(), &name, conditions::is_crd_established()).await.unwrap();
        // Established is said a moment before the first request is answered.
        for version in crd.spec.versions.iter().filter(|version| version.served) {
            let (kind, names) = (&crd.spec.names.kind, &crd.spec.names);
            let gvk = kube::api::GroupVersionKind::gvk(&crd.spec.group, &version.name, kind);
            let served = ApiResource::from_gvk_with_plural(&gvk, &names.plural);
            let served: Api<DynamicObject> = Api::all_with(client.clone(), &served);
            server::eventually("a new kind is served", async || {
                served.list(&ListParams::default().limit(1)).await.ok()
            })
            .await;
        }
    }
}
