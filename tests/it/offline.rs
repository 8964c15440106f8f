//! The verbs that read a folder or the local repository, as they are typed.

use std::{fs, path::Path, process::Command as Process};

use clap::{CommandFactory as _, Parser};
use ostler::cli::offline::{Command, schema};

/// The verbs alone, as `main` has them among others.
#[derive(Debug, Parser)]
struct Typed {
    #[command(subcommand)]
    command: Command,
}

/// The exit code of a command line; what cannot be carried out is 2.
fn code(line: &[&str]) -> u8 {
    let typed = Typed::parse_from([&["ostler"], line].concat());
    let code = typed.command.run().unwrap_or_else(|_| 2.into());
    // ExitCode tells its number to nobody else
    let text = format!("{code:?}");
    (0..=2).find(|n| text == format!("{:?}", std::process::ExitCode::from(*n))).unwrap()
}

fn agent(n: usize) -> String {
    format!("apiVersion: ostler.dev/v1alpha1\nkind: Agent\nmetadata: {{name: a{n}}}\nspec: {{preset: pi}}\n")
}

fn git(folder: &Path, arguments: &[&str]) {
    let settings = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
    let done = Process::new("git").arg("-C").arg(folder).args(settings).args(arguments).output().unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A repository with 200 good files and then one of them broken.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "-q", "-b", "main"]);
    for n in 0..200 {
        fs::write(folder.path().join(format!("{n}.yaml")), agent(n)).unwrap();
    }
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-q", "-m", "good"]);
    fs::write(folder.path().join("77.yaml"), agent(77).replace("preset", "presett")).unwrap();
    git(folder.path(), &["commit", "-q", "-a", "-m", "one broken"]);
    folder
}

#[test]
fn arguments_are_sound() {
    Typed::command().debug_assert();
}

#[test]
fn exit_codes_tell_valid_from_invalid_and_same_from_different() {
    let repository = repository();
    let at = repository.path().to_str().unwrap();
    let cases: &[(&[&str], u8)] = &[
        (&["validate", "-C", at, "HEAD~1"], 0),
        (&["validate", "-C", at, "HEAD"], 1),
        (&["validate", at], 1),
        (&["validate", "-C", at, "no-such-revision"], 2),
        (&["validate", at, "-p", "no-such-folder"], 2),
        (&["plan", "-C", at], 1),
        (&["plan", "-C", at, "HEAD~1..HEAD", "--output", "json"], 1),
        (&["plan", "-C", at, "HEAD~1..HEAD~1", "--output", "yaml"], 0),
        (&["plan", "-C", at, "HEAD~1"], 1),
        (&["diff", "-C", at, "HEAD~1..HEAD"], 1),
        (&["diff", "-C", at, "main~1..main~1"], 0),
        (&["schema", "hrun"], 0),
        (&["schema", "Deployment"], 2),
        (&["crds"], 0),
    ];
    for (line, expected) in cases {
        assert_eq!(code(line), *expected, "{line:?}");
    }
}

#[test]
fn warnings_are_errors_when_strict() {
    let folder = tempfile::tempdir().unwrap();
    let run = "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: r}\nspec: {agentRef: {name: gone}, task: {prompt: x}}\n";
    fs::write(folder.path().join("r.yaml"), run).unwrap();
    let at = folder.path().to_str().unwrap();
    assert_eq!((code(&["validate", at]), code(&["validate", "--strict", at])), (0, 1));
}

#[test]
fn code_repositories_that_are_not_allowed_are_refused_before_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let session = "apiVersion: ostler.dev/v1alpha1\nkind: Session\nmetadata: {name: s}\nspec: {repository: {url: https://git.example.com/shop/a}}\n";
    fs::write(folder.path().join("s.yaml"), session).unwrap();
    let at = folder.path().to_str().unwrap();
    let with = |verb: &str, patterns: &str| code(&[verb, at, "--allowed-repositories", patterns]);
    assert_eq!(code(&["validate", at]), 0);
    assert_eq!(with("validate", "https://git.example.com/other/*,https://git.example.com/shop/*"), 0);
    assert_eq!(with("validate", "https://git.example.com/other/*"), 1);
    assert_eq!(with("validate", "https://git.example.com/shop-*"), 2);
    assert_eq!(with("plan", "https://git.example.com/other/*"), 1);
}

#[test]
fn a_link_in_a_folder_is_not_followed() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("bad.yaml"), "kind: [").unwrap();
    std::os::unix::fs::symlink(outside.path(), inside.path().join("folder")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("bad.yaml"), inside.path().join("file.yaml")).unwrap();
    assert_eq!(code(&["validate", inside.path().to_str().unwrap()]), 0);
}

#[test]
fn committed_schemas_are_the_generated_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut generated = schema::files();
    generated.push(("openapi.json".into(), ostler::api::openapi()));
    generated.sort();
    assert_eq!(names, generated.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for (name, text) in generated {
        let committed = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(committed == text, "schemas/{name} is out of date: make generate");
    }
}

#[test]
fn schemas_are_written_as_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("schemas");
    assert_eq!(code(&["schema", "--all", "--dir", at.to_str().unwrap()]), 0);
    assert_eq!(fs::read_dir(&at).unwrap().count(), schema::files().len());
}
