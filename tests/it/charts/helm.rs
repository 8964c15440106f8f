//! Helm and kubectl, as somebody at a prompt has them.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::{io::AsyncWriteExt, process::Command, sync::OnceCell};

use super::ROOT;

/// A prompt with Helm and kubectl for one cluster, or for none.
pub(super) struct Helm {
    program: PathBuf,
    kubectl: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: tempfile::TempDir,
}

/// What a build script prints.
async fn built(script: &str) -> PathBuf {
    let built = Command::new(Path::new(ROOT).join(script)).output().await.unwrap();
    assert!(built.status.success(), "{script}: {}", String::from_utf8_lossy(&built.stderr));
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end())
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) output: String,
    pub(super) complaints: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let [out, complaints] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        Self { success: output.status.success(), output: out, complaints }
    }

    pub(super) fn succeeded(self) -> String {
        assert!(self.success, "{}{}", self.output, self.complaints);
        self.output
    }

    pub(super) fn failed(self) -> String {
        assert!(!self.success, "{}", self.output);
        self.complaints
    }
}

impl Helm {
    /// Without a cluster.
    pub(super) async fn alone() -> Self {
        Self::for_whom(None).await
    }

    /// With that kubeconfig.
    pub(super) async fn of(kubeconfig: &Path) -> Self {
        Self::for_whom(Some(kubeconfig.to_owned())).await
    }

    async fn for_whom(kubeconfig: Option<PathBuf>) -> Self {
        static BUILT: OnceCell<(PathBuf, PathBuf)> = OnceCell::const_new();
        let both = BUILT.get_or_init(async || {
            (built("tests/charts/build.sh").await, built("tests/cluster/build.sh").await.join("kubectl"))
        });
        let (helm, kubectl) = both.await.clone();
        Self { program: helm, kubectl, kubeconfig, home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.home.path()).current_dir(ROOT).stdin(Stdio::null());
        command.env("KUBECONFIG", self.kubeconfig.as_deref().unwrap_or_else(|| Path::new("/dev/null")));
        command.kill_on_drop(true);
        command
    }

    /// What a call of Helm ends with.
    pub(super) async fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(&self.program).args(arguments).output().await.unwrap())
    }

    /// What a call of kubectl ends with, that reads this.
    pub(super) async fn kubectl(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.command(&self.kubectl);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feed = async move {
            // a program that ends before it has read everything says why by itself
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let ((), ended) = tokio::join!(feed, child.wait_with_output());
        Ended::of(ended.unwrap())
    }

    /// What a script ends with that calls `helm` and `kubectl`, in a folder that has a checkout's charts, manifests and
    /// schemas.
    pub(super) async fn script(&self, script: &str) -> Ended {
        let (programs, checkout) = (self.home.path().join("bin"), self.home.path().join("checkout"));
        let link = |from: &Path, to: PathBuf| std::os::unix::fs::symlink(from, to).unwrap();
        std::fs::create_dir(&programs).unwrap();
        link(&self.program, programs.join("helm"));
        link(&self.kubectl, programs.join("kubectl"));
        std::fs::create_dir(&checkout).unwrap();
        for folder in ["charts", "deploy", "schemas"] {
            link(&Path::new(ROOT).join(folder), checkout.join(folder));
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut bash = self.command(Path::new("bash"));
        bash.env("PATH", path).current_dir(checkout).args(["-euxo", "pipefail", "-c", script]);
        Ended::of(bash.output().await.unwrap())
    }

    /// The manifests of the chart `ostler` with these values.
    pub(super) async fn template(&self, namespace: &str, values: &[&str]) -> Ended {
        let mut arguments = vec!["template", "ostler", "charts/ostler", "--namespace", namespace];
        arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
        self.run(&arguments).await
    }
}
