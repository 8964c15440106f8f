//! `examples/repo-layout` is what it says: it loads without a complaint, and `ostler up` runs its shell agent.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ostler::{
    ledger,
    manifest::{Change, Desired, Files, Scope},
    names::RepoPath,
    plan::{Action, Live, Policy, Prune, plan},
};

fn example(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder)
}

/// All files below a folder, as paths relative to it.
fn files_below(base: &Path) -> Vec<String> {
    let mut folders = vec![base.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn is_yaml(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == "yaml" || e == "yml")
}

fn desired() -> Desired {
    let base = example("repo-layout");
    let mut files = Files::new(Scope::new("default".parse().unwrap(), &[]).unwrap());
    files.update(files_below(&base).into_iter().filter(|path| is_yaml(path)).map(|path| Change::Written {
        bytes: std::fs::read(base.join(&path)).unwrap(),
        blob: path.clone(),
        path: path.parse().unwrap(),
    }));
    files.desired(|path: &RepoPath| std::fs::read(base.join(path.as_str())).ok())
}

#[test]
fn the_repository_loads_without_a_complaint() {
    let desired = desired();
    let complaints: Vec<String> =
        desired.diagnostics.iter().map(ostler::manifest::Diagnostic::headline).collect();
    assert_eq!(complaints, [""; 0]);
    let mut objects: Vec<String> = desired.objects.keys().map(ToString::to_string).collect();
    objects.sort();
    objects.retain(|object| !object.starts_with("ConfigMap default/ostler-prompt-"));
    assert_eq!(
        objects,
        [
            "Agent default/claude",
            "Agent default/pi",
            "Agent default/shell",
            "EgressPolicy default/anthropic",
            "EgressPolicy default/default",
            "EgressPolicy default/models",
            "HarnessRun default/2026-11-21-fix-login",
            "Session default/payments",
        ]
    );
}

#[test]
fn every_manifest_names_its_schema() {
    let base = example("repo-layout");
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let manifests: Vec<String> =
        files_below(&base).into_iter().filter(|p| is_yaml(p) && !p.starts_with('.')).collect();
    assert_eq!(manifests.len(), 6, "{manifests:?}");
    for path in manifests {
        let text = std::fs::read_to_string(base.join(&path)).unwrap();
        let first = text.lines().next().unwrap();
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema = schema.unwrap_or_else(|| panic!("{path} begins with {first:?}"));
        let levels = schema.matches("../").count();
        assert_eq!(levels, path.matches('/').count() + 2, "{path}: {schema} does not lead to the top");
        let name = schema.trim_start_matches("../").strip_prefix("schemas/").unwrap();
        assert!(schemas.join(name).is_file(), "{path} names schemas/{name}, which does not exist");
    }
}

#[test]
fn an_empty_store_gets_all_of_it() {
    let policy = Policy {
        source: "default/config".to_owned(),
        uid: "config".parse().unwrap(),
        commit: None,
        prune: Prune::default(),
        allow_prune: None,
    };
    let desired = desired();
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let (_, report) = plan(&desired, &Live::default(), &ledger::View::default(), &policy, now);
    assert_eq!(report.items.len(), 9, "{report}");
    assert!(report.items.iter().all(|item| item.action == Action::Create), "{report}");
    let assumed = Live::assumed(&desired, &policy);
    let (_, report) = plan(&desired, &assumed, &ledger::View::default(), &policy, now);
    assert_eq!(report.exit_code(), 0, "{report}");
}

/// A folder like a checkout of ostler with the examples in it, whose session works on a repository made of
/// `examples/code-project`. Its user has a home of its own, a name for commits, and `ostler` on the path.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let sandbox = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["home", "bin", "code", "ostler/examples"] {
            std::fs::create_dir_all(sandbox.path(folder)).unwrap();
        }
        let settings = "[user]\nname = somebody\nemail = somebody@example.com\n";
        std::fs::write(sandbox.path("home/.gitconfig"), settings).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ostler"), sandbox.path("bin/ostler")).unwrap();
        for (from, to) in [("code-project", "code"), ("repo-layout", "ostler/examples/repo-layout")] {
            for file in files_below(&example(from)) {
                let to = sandbox.path(to).join(&file);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(example(from).join(&file), to).unwrap();
            }
        }
        sandbox.passes("git init -q -b main && git add -A && git commit -q -m start", "code");
        let session = sandbox.path("ostler/examples/repo-layout/teams/payments/session.yaml");
        let text = std::fs::read_to_string(&session).unwrap();
        let url = format!("file://{}", sandbox.path("code").display());
        let changed = text.replace("https://git.example.com/payments/login.git", &url);
        assert_ne!(changed, text, "the session names the repository that belongs to nobody");
        std::fs::write(&session, changed).unwrap();
        sandbox
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Runs a script of bash in a folder of the sandbox; returns whether it succeeded, with all it wrote.
    pub(crate) fn bash(&self, script: &str, folder: &str) -> (bool, String) {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.path(folder));
        command.env_clear().env("PATH", path).env("HOME", self.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&both).into_owned())
    }

    /// The same for a script that must succeed; returns what it wrote.
    pub(crate) fn passes(&self, script: &str, folder: &str) -> String {
        let (passed, said) = self.bash(script, folder);
        assert!(passed, "{script}\n{said}");
        said
    }
}

#[test]
fn ostler_runs_the_example_once() {
    let sandbox = Sandbox::new();
    let config = "ostler/examples/repo-layout";
    sandbox.passes("git init -q -b main && git add -A && git commit -q -m first", config);
    let said = sandbox.passes("ostler up . --until-idle --timeout 5m", config);
    assert!(said.contains("idle: 1 succeeded, 0 did not, 0 wait"), "{said}");

    let branch = "ostler/default/2026-11-21-fix-login";
    sandbox.passes(&format!("git checkout -q {branch} && sh test.sh"), "code");
    let starts = sandbox.passes("cat STARTS", "code");
    assert_eq!(starts.lines().count(), 1, "{starts}");
    let result =
        sandbox.passes("git show ostler/results:runs/default/1c/2026-11-21-fix-login/result.yaml", config);
    assert!(result.contains(branch), "{result}");
    sandbox.passes("ostler verify results .", config);

    // an empty state folder is a new machine: it takes the result over and starts nothing
    let tips =
        "git rev-parse ostler/results && git -C ../../../code rev-parse ostler/default/2026-11-21-fix-login";
    let before = sandbox.passes(tips, config);
    let said = sandbox.passes("ostler up . --until-idle --timeout 5m --state ../new-state", config);
    assert!(said.contains("idle: 1 succeeded, 0 did not, 0 wait"), "{said}");
    assert_eq!(sandbox.passes(tips, config), before);
}

#[test]
fn the_demo_can_be_called_again() {
    let sandbox = Sandbox::new();
    let root = env!("CARGO_MANIFEST_DIR");
    let demo = format!("OSTLER=$(command -v ostler) OSTLER_DEMO_DIR=$PWD/demo {root}/scripts/demo.sh");
    let first = sandbox.passes(&demo, "home");
    assert!(first.contains("Good \"git\" signature for ostler@localhost"), "{first}");
    let again = sandbox.passes(&demo, "home");
    assert!(again.contains("nothing new: the run was recorded before"), "{again}");
    sandbox.passes(&format!("{demo} --clean"), "home");
    assert!(!sandbox.path("home/demo").exists());
}

/// Runs a program and returns whether it succeeded, with all it wrote.
fn run(program: &str, args: &[&str], folder: &Path, env: &[(String, String)]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder);
    command.env("GIT_CONFIG_NOSYSTEM", "1").envs(env.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn the_shell_agent_repairs_the_code_project() {
    let desired = desired();
    let shell = desired.objects.iter().find(|(id, _)| id.to_string() == "Agent default/shell").unwrap().1;
    let spec = &shell.value()["spec"];
    let texts = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let command = texts(&spec["command"]);
    let args: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    let pair = |variable: &serde_json::Value| {
        (variable["name"].as_str().unwrap().to_owned(), variable["value"].as_str().unwrap().to_owned())
    };
    let mut env: Vec<_> = spec["env"].as_array().unwrap().iter().map(pair).collect();
    let prompt = example("repo-layout/prompts/fix-login.md").to_str().unwrap().to_owned();
    env.push(("OSTLER_PROMPT_FILE".to_owned(), prompt));

    let folder = tempfile::tempdir().unwrap();
    let work = folder.path();
    for file in files_below(&example("code-project")) {
        std::fs::copy(example("code-project").join(&file), work.join(&file)).unwrap();
    }
    for step in
        [&["init", "--quiet", "-b", "main"][..], &["add", "-A"], &["commit", "--quiet", "-m", "start"]]
    {
        assert!(run("git", step, work, &env).0, "git {step:?}");
    }

    assert!(!run("sh", &["test.sh"], work, &[]).0, "the project is broken at first");
    let (worked, said) = run(&command[0], &args, work, &env);
    assert!(worked, "{said}");
    assert!(run("sh", &["test.sh"], work, &[]).0, "the project is repaired: {said}");
    let (_, changed) = run("git", &["show", "--name-only", "--format=", "HEAD"], work, &[]);
    assert_eq!(changed, "STARTS\nlogin.sh\n");
    assert_eq!(run("git", &["status", "--porcelain"], work, &[]).1, "", "nothing is left uncommitted");
    assert_eq!(std::fs::read_to_string(work.join("STARTS")).unwrap().lines().count(), 1);

    let (again, said) = run(&command[0], &args, work, &env);
    assert!(again && said.contains("nothing to do"), "{said}");
}
