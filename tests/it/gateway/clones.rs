//! Clones through the gateway, by the git program and by real servers: the pod never has the credential.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use ostler::{
    ports::workloads::{Checkout, ContextContent, ContextFile},
    proxy::tunnel::{Client, OpenError, Target},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

use super::stage::{Agent, Stage, eventually};
use crate::servers::{
    git_http::{Auth, GitHttp, Options},
    repo::{self, Repo},
    ssh::{self, Ssh},
};

fn checkout(url: &str, secret: Option<&str>) -> Checkout {
    Checkout {
        url: url.to_owned(),
        reference: None,
        depth: 1,
        secret: secret.map(|name| name.parse().unwrap()),
        branch: "ostler/run".to_owned(),
    }
}

impl Stage {
    async fn secret(&self, name: &str, host: &str, data: &Value) {
        let secrets: Api<Secret> = Api::namespaced(self.kube.clone(), &self.namespace);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "annotations": {"ostler.dev/use": "git", "ostler.dev/hosts": host}},
            "stringData": data,
        });
        secrets.patch(name, &PatchParams::apply("tests"), &Patch::Apply(secret)).await.unwrap();
    }

    async fn cloner(&self, checkout: Checkout) -> Agent {
        let mut spec = self.spec(&[]);
        spec.checkout = Some(checkout);
        self.agent(spec).await
    }
}

/// What a sidecar does: a port of its own that leads to one repository.
struct Bridge {
    url: String,
    _task: AbortOnDropHandle<()>,
}

impl Bridge {
    async fn to(client: Client, url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let target = Target::Clone { url: url.to_owned() };
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (client, target) = (client.clone(), target.clone());
                tokio::spawn(async move {
                    let mut far = client.open(&target).await.unwrap();
                    // git breaks off when it has what it wants
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { url: own, _task: AbortOnDropHandle::new(task) }
    }

    /// Runs git in a folder, and gives whether it was content, and its words.
    async fn git(&self, folder: &std::path::Path, arguments: &[&str]) -> (bool, String) {
        let mut command = repo::command(folder);
        command.env("GIT_TERMINAL_PROMPT", "0").args(arguments).arg(&self.url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A fresh clone, with this version of the protocol; gives the folder.
async fn clone(bridge: &Bridge, version: &str, more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let version = format!("protocol.version={version}");
    let arguments = [&["-c", &version, "clone", "--quiet"], more].concat();
    let (fine, said) = bridge.git(folder.path(), &arguments).await;
    assert!(fine, "{said}");
    folder
}

/// The one folder that a clone made.
fn cloned(folder: &tempfile::TempDir) -> std::path::PathBuf {
    std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path()
}

async fn denied(agent: &Agent, url: &str) -> String {
    match agent.client().open(&Target::Clone { url: url.to_owned() }).await {
        Err(OpenError::Denied { message }) => message,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is open"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_over_https_is_cloned_with_the_gateways_credential() {
    let (stage, repo) = (Stage::start().await, Repo::with_readme());
    for number in 0..40 {
        repo.commit(&[("count", &number.to_string())], "more");
    }
    let head = repo.push(&[("last", "one\n")], "last");
    let auth = Some(Auth::Basic("bot", "s3cret"));
    let web = GitHttp::start(repo.root(), Options { tls: true, auth, push: true, ..Options::default() });
    let data = json!({"username": "bot", "password": "s3cret", "ca.crt": web.ca()});
    stage.secret("clone", &web.address().to_string(), &data).await;
    let url = web.url("origin.git");
    let agent = stage.cloner(checkout(&url, Some("clone"))).await;
    let bridge = Bridge::to(agent.client(), &url).await;
    for version in ["2", "0"] {
        let folder = clone(&bridge, version, &[]).await;
        assert_eq!(repo::git(&cloned(&folder), &["rev-parse", "HEAD"]), head, "version {version}");
        let shallow = clone(&bridge, version, &["--depth=1"]).await;
        assert_eq!(repo::git(&cloned(&shallow), &["rev-list", "--count", "HEAD"]), "1");
        // Later fetches say what they have, compressed when that is long.
        repo.push(&[("later", version)], "later");
        let (fine, said) = bridge.git(&cloned(&folder), &["fetch", "--quiet"]).await;
        assert!(fine, "{said}");
        repo.git(&["reset", "--quiet", "--hard", &head]);
        repo.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
    }
    let seen = web.seen();
    assert!(seen.iter().all(|request| request.authorization.as_deref() == Some("Basic Ym90OnMzY3JldA==")));

    let (fine, said) = bridge.git(&repo.work(), &["push", "--quiet", "--all"]).await;
    assert!(!fine && said.contains("403"), "{said}");
    assert!(web.seen().is_empty(), "a push does not come to the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_over_ssh_is_cloned_with_the_gateways_identity() {
    let stage = Stage::start().await;
    for version_2 in [true, false] {
        let server = Ssh::start(&ssh::Options { version_2, ..ssh::Options::default() });
        let repo = Repo::with_readme();
        let head = repo.push(&[("a", &"text\n".repeat(10_000))], "second");
        let private = server.user("user", &["-t", "ed25519"]);
        let data = json!({"identity": private, "known_hosts": server.known_hosts()});
        let name = if version_2 { "two" } else { "old" };
        stage.secret(name, &server.address(), &data).await;
        let url = server.url(&repo.bare());
        let agent = stage.cloner(checkout(&url, Some(name))).await;
        let bridge = Bridge::to(agent.client(), &url).await;
        let folder = clone(&bridge, "2", &[]).await;
        assert_eq!(repo::git(&cloned(&folder), &["rev-parse", "HEAD"]), head, "version 2: {version_2}");
        let shallow = clone(&bridge, "2", &["--depth=1"]).await;
        assert_eq!(repo::git(&cloned(&shallow), &["rev-list", "--count", "HEAD"]), "1");
        let third = repo.push(&[("b", "b\n")], "third");
        let (fine, said) = bridge.git(&cloned(&folder), &["fetch", "--quiet"]).await;
        assert!(fine, "{said}");
        assert_eq!(repo::git(&cloned(&folder), &["rev-parse", "FETCH_HEAD"]), third);
        assert!(!server.log().contains("receive-pack"), "{}", server.log());
    }
}

#[tokio::test]
async fn only_the_runs_own_repositories_are_open_and_only_at_first() {
    let stage = Stage::start().await;
    let mut spec = stage.spec(&[]);
    spec.checkout = Some(checkout("https://git.test/team/a", None));
    spec.contexts = vec![ContextFile {
        name: "shared".to_owned(),
        path: "shared".to_owned(),
        mode: 0o644,
        optional: false,
        content: ContextContent::Git { checkout: checkout("/srv/git/local.git", None), path: None },
    }];
    let agent = stage.agent(spec).await;
    assert_eq!(denied(&agent, "https://git.test/team/b").await, "The run names no such repository.");
    let local = denied(&agent, "/srv/git/local.git").await;
    assert_eq!(local, "A path on a disk is not a repository that a pod can clone.");
    agent.client().open(&Target::Clone { url: "https://git.test/team/a".to_owned() }).await.unwrap();

    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    agent.status(json!({"startTime": long_ago.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()})).await;
    let late = eventually("the pod is old", async || {
        let opened = agent.client().open(&Target::Clone { url: "https://git.test/team/a".to_owned() }).await;
        opened.err().map(|error| error.to_string())
    })
    .await;
    assert!(late.contains("in the first 30 minutes"), "{late}");
    assert!(agent.client().proof().await.is_ok(), "other targets do not end with it");
}

#[tokio::test]
async fn credentials_go_only_where_their_secret_says() {
    let (stage, repo) = (Stage::start().await, Repo::with_readme());
    let auth = Some(Auth::Basic("bot", "s3cret"));
    let web = GitHttp::start(repo.root(), Options { tls: true, auth, ..Options::default() });
    let url = web.url("origin.git");
    let data = json!({"username": "bot", "password": "s3cret", "ca.crt": web.ca()});
    stage.secret("elsewhere", "git.test", &data).await;
    let agent = stage.cloner(checkout(&url, Some("elsewhere"))).await;
    let said = denied(&agent, &url).await;
    assert!(said.contains("elsewhere may not be used") && !said.contains("s3cret"), "{said}");
    let agent = stage.cloner(checkout(&url, Some("missing"))).await;
    assert!(denied(&agent, &url).await.contains("missing does not exist"));
    let agent = stage.cloner(checkout(&url, None)).await;
    // An egress token opens no clone.
    agent.has_token("ostler-clone", &agent.token(&["ostler-egress"], true).await);
    assert!(denied(&agent, &url).await.contains("audience ostler-clone"));
    assert!(web.seen().is_empty());
}

/// One request on a tunnel of its own; the whole answer.
async fn ask(agent: &Agent, url: &str, request: &str) -> String {
    let mut stream = agent.client().open(&Target::Clone { url: url.to_owned() }).await.unwrap();
    let request = format!("{request}\r\nHost: git\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn nothing_but_reading_is_passed_on_and_failures_have_words() {
    let (stage, repo) = (Stage::start().await, Repo::with_readme());
    let auth = Some(Auth::Basic("bot", "s3cret"));
    let web = GitHttp::start(repo.root(), Options { tls: true, auth, push: true, ..Options::default() });
    let data = json!({"username": "bot", "password": "wrong", "ca.crt": web.ca()});
    stage.secret("wrong", &web.address().to_string(), &data).await;
    let url = web.url("origin.git");
    let agent = stage.cloner(checkout(&url, Some("wrong"))).await;
    for request in [
        "GET /info/refs?service=git-receive-pack HTTP/1.1",
        "POST /git-receive-pack HTTP/1.1",
        "GET /HEAD HTTP/1.1",
        "GET /../other.git/info/refs?service=git-upload-pack HTTP/1.1",
        "GET /info/refs HTTP/1.1",
    ] {
        let answer = ask(&agent, &url, request).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("Only git-upload-pack"), "{answer}");
    }
    assert!(web.seen().is_empty(), "none of it came to the server");
    let answer = ask(&agent, &url, "GET /info/refs?service=git-upload-pack HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("credential"), "{answer}");
    assert!(!answer.contains("wrong") && !answer.to_lowercase().contains("www-authenticate"), "{answer}");

    // What is no Git is not read through us.
    let missing = web.url("none.git");
    let data = json!({"username": "bot", "password": "s3cret", "ca.crt": web.ca()});
    stage.secret("right", &web.address().to_string(), &data).await;
    let agent = stage.cloner(checkout(&missing, Some("right"))).await;
    let answer = ask(&agent, &missing, "GET /info/refs?service=git-upload-pack HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("none.git"), "{answer}");
}
