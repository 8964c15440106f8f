//! One world for one test: a config repository, a code repository, a home and a state folder, and `ostler` in them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use ostler::{
    embedded::objects,
    kinds::{HarnessRun, Typed, harness_run::HarnessRunStatus},
    ports::{Objects, objects as port},
};

use super::{
    engine::Engine,
    ledger::Ledger,
    manifests,
    up::{self, Ended, Up},
};
use crate::servers::repo::Repo;

/// No wait is longer: a test that hangs says so.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// How often something that tells nobody of its changes is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// The whole world of a test. Dropped, its folder goes, and with it whatever still runs in its state folder.
pub(super) struct World {
    root: tempfile::TempDir,
    /// The config repository.
    pub(super) config: Repo,
    /// The code repository.
    pub(super) code: Repo,
    /// Runs servers of the test, and asks the store.
    pub(super) runtime: tokio::runtime::Runtime,
    /// Which repository `up` follows: its first arguments.
    pub(super) target: Vec<OsString>,
    /// The repository that the ledger is in.
    pub(super) ledger: PathBuf,
    engine: Engine,
}

impl World {
    /// Both repositories are bare ones on the disk. The config repository holds the agent `shell` and the session `work`.
    pub(super) fn new() -> Self {
        let (config, code) = (Repo::new(), Repo::new());
        code.push(&[("README.md", "a tiny project\n")], "begin");
        let url = code.bare();
        let world = Self::of(config, code);
        world.config.push(
            &[
                ("agents/shell.yaml", &manifests::shell()),
                ("session.yaml", &manifests::session(&url.display().to_string())),
            ],
            "an agent and a session",
        );
        world
    }

    /// With these repositories, as they are.
    pub(super) fn of(config: Repo, code: Repo) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["home", "secrets"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (target, ledger) = (vec![config.bare().into()], config.bare());
        let engine = Engine::new(&runtime);
        Self { root, config, code, runtime, target, ledger, engine }
    }

    /// A path in the world's own folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The state folder.
    pub(super) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file of the world's own folder, readable by its owner only.
    pub(super) fn write(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        // A secret appears at once or not at all, and never with a mode that is too open.
        let staged = self.path("staged");
        fs::write(&staged, content).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(staged, &path).unwrap();
        path
    }

    /// Commits files to the config repository and pushes; gives the commit.
    pub(super) fn push(&self, files: &[(&str, &str)], message: &str) -> String {
        self.config.push(files, message)
    }

    /// Pushes one run, as `runs/NAME.yaml`, with the agent's script as its prompt.
    pub(super) fn push_run(&self, name: &str, script: &str) -> String {
        let run = manifests::run(name, script);
        self.push(&[(&format!("runs/{name}.yaml"), &run)], &format!("run {name}"))
    }

    /// Removes a file of the config repository and pushes.
    pub(super) fn remove(&self, path: &str) -> String {
        self.config.git(&["rm", "--quiet", path]);
        self.push(&[], &format!("remove {path}"))
    }

    /// `ostler` without the machine's or the user's configuration.
    pub(super) fn ostler(&self) -> Command {
        up::ostler(self.root.path())
    }

    /// What `ostler logs` says of a run, with the Secrets of `secrets` where nobody else has them.
    pub(super) fn logs(&self, run: &str) -> Output {
        let target = self.engine.of_logs(&self.state(), &self.path("secrets"));
        self.ostler().args(["logs", run]).args(target).output().unwrap()
    }

    fn up_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ostler();
        command
            .arg("up")
            .args(&self.target)
            .arg("--state")
            .arg(self.state())
            .arg("--json")
            .args(self.engine.arguments());
        command.args(arguments);
        command
    }

    /// Starts `ostler up` and waits until it serves.
    pub(super) fn up(&self) -> Up {
        self.up_with(&[])
    }

    /// The same with more arguments.
    pub(super) fn up_with(&self, arguments: &[&str]) -> Up {
        let up = Up::start(self.up_command(arguments));
        up.line("it serves", |line| line["what"] == "listening");
        up
    }

    /// Starts `ostler up` and waits for nothing.
    pub(super) fn up_at_once(&self) -> Up {
        Up::start(self.up_command(&[]))
    }

    /// Runs `ostler up --until-idle` to its end.
    pub(super) fn up_until_idle(&self, arguments: &[&str]) -> Ended {
        let mut command = self.up_command(arguments);
        command.args(["--until-idle", "--timeout", "3m"]);
        Up::start(command).end()
    }

    /// The ledger as the git program sees it.
    pub(super) fn ledger(&self) -> Ledger<'_> {
        Ledger::new(&self.ledger, self.signers())
    }

    /// An `allowed_signers` file with the public half of the user's own key.
    pub(super) fn signers(&self) -> PathBuf {
        let key = fs::read_to_string(self.path("home/.config/ostler/signing_key.pub")).unwrap();
        self.write("allowed_signers", &format!("ostler namespaces=\"git\" {key}"))
    }

    /// Reads an object of namespace `default` where no `up` runs.
    pub(super) fn stored<K: Typed>(&self, name: &str) -> Option<K> {
        self.runtime.block_on(self.engine.stored(&self.state(), name))
    }

    /// The status of a run, where no `up` runs.
    pub(super) fn stored_status(&self, name: &str) -> HarnessRunStatus {
        self.stored::<HarnessRun>(name).expect("the run is there").status.expect("it has a status")
    }

    /// Watches an object of namespace `default` at the running `up` until it is as it should be; `None` is one that is not
    /// there.
    pub(super) fn wait<K: Typed + ResourceExt>(
        &self,
        name: &str,
        what: &str,
        mut until: impl FnMut(Option<&K>) -> bool,
    ) -> Option<K> {
        let mut seen: Option<K> = None;
        let watching = async {
            let store = objects::connect(&self.state().join("ostler.sock")).await.unwrap();
            let store: &dyn Objects = &store;
            let mut events = port::watch::<K>(store, Some("default".parse().unwrap()));
            let mut whole = false;
            while let Some(event) = events.next().await {
                match event.expect("the store can be watched") {
                    Event::Init => (seen, whole) = (None, false),
                    Event::InitDone => whole = true,
                    Event::InitApply(object) | Event::Apply(object) if object.name_any() == name => {
                        seen = Some(object);
                    }
                    Event::Delete(object) if object.name_any() == name => seen = None,
                    _ => {}
                }
                if whole && until(seen.as_ref()) {
                    return;
                }
            }
            panic!("the watch ended");
        };
        let waited = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, watching).await });
        let last = || serde_json::to_string_pretty(&seen).unwrap();
        assert!(waited.is_ok(), "{what}: {} {name} did not come so far: {}", K::KIND, last());
        seen
    }

    /// Waits until a run's status is as it should be, and gives the run.
    pub(super) fn wait_run(
        &self,
        name: &str,
        what: &str,
        mut until: impl FnMut(&HarnessRunStatus) -> bool,
    ) -> HarnessRun {
        let until =
            |run: Option<&HarnessRun>| run.and_then(|run| run.status.as_ref()).is_some_and(&mut until);
        self.wait::<HarnessRun>(name, what, until).unwrap()
    }

    /// The folder of a run's place.
    pub(super) fn place(&self, run: &HarnessRun) -> PathBuf {
        self.state().join("places").join(run.uid().unwrap())
    }

    /// Waits until the agent of a run, whose script says [`manifests::GATE`], stands before its gate.
    pub(super) fn at_gate(&self, run: &HarnessRun) -> PathBuf {
        let gate = self.place(run).join("tmp/gate");
        eventually("the agent stands before its gate", || gate.exists());
        gate
    }

    /// Lets the agent go on.
    pub(super) fn open_gate(&self, run: &HarnessRun) {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let gate = self.at_gate(run);
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        let mut opened = None;
        eventually("the agent reads at its gate", || {
            opened = fs::File::options().write(true).custom_flags(flags).open(&gate).ok();
            opened.is_some()
        });
        opened.unwrap().write_all(b"go\n").unwrap();
    }

    /// What a file holds at the tip of a run's code branch.
    pub(super) fn code_file(&self, run: &str, path: &str) -> String {
        self.code.bare_git(&["show", &format!("ostler/default/{run}:{path}")])
    }

    /// The branches of the code repository.
    pub(super) fn code_branches(&self) -> Vec<String> {
        let names = self.code.bare_git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Throws the state folder and the objects away, whatever runs there.
    pub(super) fn forget_state(&self) {
        // Who still writes there gives up within moments.
        eventually("the state folder goes", || {
            let _ = fs::remove_dir_all(self.state());
            !self.state().exists()
        });
        self.runtime.block_on(self.engine.forget());
    }
}

/// Looks again and again until it is so.
pub(super) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(GLANCE);
    }
}

/// All regular files below a folder.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}
