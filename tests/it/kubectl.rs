//! Habits of people with kubectl, on a real API server with our kinds.

use std::path::{Path, PathBuf};

use tokio::{process::Command, sync::OnceCell};

use crate::cluster::{self, Cluster};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A user at a prompt, in a namespace of their own.
pub(crate) struct Prompt {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    home: tempfile::TempDir,
}

/// The kubectl that comes with the API server.
async fn program() -> PathBuf {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let folder = FOLDER.get_or_init(async || {
        let built = Command::new(Path::new(ROOT).join("tests/cluster/build.sh")).output().await.unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end())
    });
    folder.await.join("kubectl")
}

impl Prompt {
    async fn new() -> Self {
        let cluster = cluster::shared().await;
        cluster.install_crds().await;
        let namespace = cluster.namespace("kubectl").await;
        Self::at(cluster, &namespace).await
    }

    /// An administrator's, in that namespace.
    pub(crate) async fn at(cluster: &Cluster, namespace: &str) -> Self {
        Self {
            program: program().await,
            kubeconfig: cluster.kubeconfig().to_owned(),
            namespace: namespace.to_owned(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// What a command prints: first its output, then its complaints.
    pub(crate) async fn run(&self, arguments: &[&str]) -> [String; 2] {
        let run = Command::new(&self.program)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.path())
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .output()
            .await
            .unwrap();
        let [output, complaints] = [run.stdout, run.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(run.status.success(), "{arguments:?}: {output}{complaints}");
        [output, complaints]
    }

    /// Applies the manifests of the example repository, and kubectl finds nothing odd about them.
    async fn apply_examples(&self, how: &[&str]) -> String {
        let [agents, policies, teams] =
            ["agents", "policies", "teams"].map(|folder| format!("{ROOT}/examples/repo-layout/{folder}"));
        let folders = ["apply", "--recursive", "-f", &agents, "-f", &policies, "-f", &teams];
        let arguments = [&folders[..], how].concat();
        let [output, complaints] = self.run(&arguments).await;
        assert_eq!(complaints, "", "no warning");
        output
    }
}

/// The words of a table's first line.
fn columns(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split_whitespace().collect()
}

#[tokio::test]
async fn examples_are_applied_and_shown_by_short_names_and_columns() {
    let prompt = Prompt::new().await;
    let dry = prompt.apply_examples(&["--dry-run=server"]).await;
    let real = prompt.apply_examples(&[]).await;
    assert_eq!(dry.replace(" (server dry run)", ""), real);
    assert!(real.contains("harnessrun.ostler.dev/") && real.contains(" created"), "{real}");

    for (short, expected) in [
        ("hrun", &["NAME", "SESSION", "PHASE", "REASON", "STARTED", "FINISHED", "AGE"][..]),
        ("agt", &["NAME", "PRESET", "MODEL", "AGE"]),
        ("egp", &["NAME", "MODE", "PRIVATE", "AGE"]),
    ] {
        let [table, _] = prompt.run(&["get", short]).await;
        assert_eq!(columns(&table), expected, "{table}");
        assert!(table.lines().count() > 1, "{table}");
    }
    let [sessions, _] = prompt.run(&["get", "ses"]).await;
    assert_eq!(&columns(&sessions)[..2], ["NAME", "AGENT"], "{sessions}");
    let [all, _] = prompt.run(&["get", "ostler", "--output", "name"]).await;
    assert_eq!(all.lines().count(), real.lines().count(), "the category has every kind: {all}");
}

#[tokio::test]
async fn fields_are_explained_and_unknown_ones_warned_of() {
    let prompt = Prompt::new().await;
    let [text, _] = prompt.run(&["explain", "harnessrun.spec"]).await;
    assert!(text.contains("KIND:       HarnessRun") && text.contains("sessionRef\t<Object>"), "{text}");
    let manifest = prompt.home.path().join("policy.yaml");
    let policy = "apiVersion: ostler.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: a}\n\
                  spec: {mode: Enforce, rulez: []}\n";
    std::fs::write(&manifest, policy).unwrap();
    let arguments = ["apply", "--validate=warn", "--filename", manifest.to_str().unwrap()];
    let [_, complaints] = prompt.run(&arguments).await;
    assert!(complaints.contains("unknown field \"spec.rulez\""), "{complaints}");
}

/// kubectl with our program in its `PATH` under both names that kubectl looks for, and a namespace in its context.
struct Plugged {
    prompt: Prompt,
    path: std::ffi::OsString,
    kubeconfig: PathBuf,
}

impl Plugged {
    async fn new() -> Self {
        let prompt = Prompt::new().await;
        let programs = prompt.home.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        for name in ["kubectl-ostler", "kubectl_complete-ostler"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ostler"), programs.join(name)).unwrap();
        }
        let known = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&known))).unwrap();
        let kubeconfig = prompt.home.path().join("kubeconfig");
        std::fs::copy(&prompt.kubeconfig, &kubeconfig).unwrap();
        let plugged = Self { prompt, path, kubeconfig };
        let namespace = plugged.prompt.namespace.clone();
        plugged.run(&["config", "set-context", "--current", "--namespace", &namespace]).await;
        plugged
    }

    /// The exit code of a command, its output and its complaints.
    async fn end(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let run = Command::new(&self.prompt.program)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.prompt.home.path())
            .env("PATH", &self.path)
            .args(arguments)
            .output()
            .await
            .unwrap();
        let [output, complaints] = [run.stdout, run.stderr].map(|text| String::from_utf8(text).unwrap());
        (run.status.code(), output, complaints)
    }

    /// The output of a command that must succeed.
    async fn run(&self, arguments: &[&str]) -> String {
        let (code, output, complaints) = self.end(arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {output}{complaints}");
        output
    }
}

#[tokio::test]
async fn verbs_of_the_plugin_act_on_the_current_context() {
    let kubectl = Plugged::new().await;
    kubectl.prompt.apply_examples(&[]).await;
    let [run, session] =
        ["hrun", "ses"].map(|kind| ["get", kind, "--output", "jsonpath={.items[0].metadata.name}"]);
    let (run, session) = (kubectl.run(&run).await, kubectl.run(&session).await);

    let table = kubectl.run(&["ostler", "get", "runs"]).await;
    assert!(table.contains(&run), "{table}");
    let file = kubectl.prompt.kubeconfig.to_str().unwrap();
    let elsewhere = kubectl.run(&["ostler", "get", "runs", "--kubeconfig", file, "--output", "name"]).await;
    assert!(!elsewhere.contains(&run), "that file's context is in namespace default: {elsewhere}");
    let both = ["ostler", "get", "runs", "--kubeconfig", file, "--namespace", &kubectl.prompt.namespace];
    assert!(kubectl.run(&both).await.contains(&run));

    kubectl.run(&["ostler", "stop", &run]).await;
    kubectl.run(&["ostler", "suspend", &format!("session/{session}")]).await;
    let field = async |kind, path| kubectl.run(&["get", kind, "--output", path]).await;
    assert_eq!(field("hrun", "jsonpath={.items[0].spec.stop}").await, "true");
    assert_eq!(field("ses", "jsonpath={.items[0].spec.suspend}").await, "true");
    kubectl.run(&["ostler", "resume", "session", &session]).await;
    assert_eq!(field("ses", "jsonpath={.items[0].spec.suspend}").await, "");

    let (code, _, complaints) = kubectl.end(&["ostler", "get", "runs", "--context", "nowhere"]).await;
    assert_eq!(code, Some(2), "{complaints}");
    assert!(complaints.contains("nowhere"), "{complaints}");
}

#[tokio::test]
async fn kubectl_knows_its_plugin_and_completes_it() {
    let kubectl = Plugged::new().await;
    let plugins = kubectl.run(&["plugin", "list"]).await;
    assert!(plugins.contains("/kubectl-ostler"), "{plugins}");
    let help = kubectl.run(&["ostler", "suspend", "--help"]).await;
    assert!(help.contains("Usage: kubectl ostler suspend "), "{help}");
    for (typed, expected) in [
        (&["sus"][..], "suspend"),
        (&["suspend", "ses"], "session"),
        (&["get", "--all-n"], "--all-namespaces"),
    ] {
        let completed = kubectl.run(&[&["__complete", "ostler"], typed].concat()).await;
        let first = completed.lines().next().unwrap().split('\t').next().unwrap();
        assert_eq!(first, expected, "{completed}");
    }
}
