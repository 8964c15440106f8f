//! `examples/repo-layout` is what it says: it loads without a complaint, and its shell agent does its work.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ostler::{
    manifest::{Change, Desired, Files, Scope},
    names::RepoPath,
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
    let complaints: Vec<String> = desired.diagnostics.iter().map(|d| d.headline()).collect();
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
