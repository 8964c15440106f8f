//! The process that runs a cluster's programs and outlives the tests by a moment, to leave nothing behind.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The file in the folder with what the keeper itself had to say.
const OWN_WORDS: &str = "keeper";

/// Runs programs in a folder. When this is dropped or this process ends, however it ends, they are killed and the
/// folder is removed.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    /// `None` only while being dropped.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Keeper {
    /// The programs share the machine with the tests.
    pub(crate) fn new() -> Self {
        Self::of("keep.sh")
    }

    /// The programs are in namespaces of their own, as the programs of a node; `node.sh` says what is in there.
    pub(crate) fn new_node() -> Self {
        Self::of("node.sh")
    }

    fn of(script: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("ostler-cluster-").tempdir().unwrap().keep();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(script);
        let own_words = File::create(folder.join(format!("{OWN_WORDS}.log"))).unwrap();
        let mut child = Command::new(script)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(own_words)
            // An interrupt from the keyboard is for the tests; this one ends after them.
            .process_group(0)
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a program under a name of ours.
    pub(crate) fn start(&mut self, name: &str, program: &Path, arguments: &[String]) {
        self.write_command(name, program, arguments);
        assert_eq!(self.order("start", name), "started", "{}", self.last_words(OWN_WORDS));
    }

    /// Runs a program to its end and gives its exit code.
    pub(crate) fn run(&mut self, name: &str, program: &Path, arguments: &[String]) -> i32 {
        self.write_command(name, program, arguments);
        let code = self.order("run", name);
        code.parse().unwrap_or_else(|_| panic!("{code:?}: {}", self.last_words(OWN_WORDS)))
    }

    fn write_command(&self, name: &str, program: &Path, arguments: &[String]) {
        let mut command = program.to_str().unwrap().to_owned();
        for argument in arguments {
            assert!(!argument.contains('\n'), "one argument is one line: {argument:?}");
            command = format!("{command}\n{argument}");
        }
        std::fs::write(self.folder.join(format!("{name}.command")), command + "\n").unwrap();
    }

    /// Kills the program of that name, if it runs, and waits for its end.
    pub(crate) fn stop(&mut self, name: &str) {
        assert_eq!(self.order("stop", name), "stopped");
    }

    pub(crate) fn alive(&mut self, name: &str) -> bool {
        self.order("alive", name) == "yes"
    }

    /// The end of what that program wrote.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let log = std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
        format!("--- {name}:\n{text}")
    }

    fn order(&mut self, order: &str, name: &str) -> String {
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{order} {name}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}
