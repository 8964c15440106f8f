//! Files, their objects and their mistakes.

use ostler::{
    manifest::{Change, Code, Desired, Files, Scope},
    names::RepoPath,
    repositories::Allowed,
};

use crate::golden;

/// Reads sections as files of a repository in namespace `team` that may also write to `team-*`. A section
/// `allowed-repositories` is the list of them.
pub(crate) fn desired(files: &[(String, String)]) -> Desired {
    let patterns = ["team".to_owned(), "team-*".to_owned()];
    let list = files.iter().find(|(path, _)| path == "allowed-repositories");
    let list: Option<Vec<String>> = list.map(|(_, text)| text.lines().map(str::to_owned).collect());
    let code = Allowed::new(list.as_deref()).unwrap();
    let scope = Scope::new("team".parse().unwrap(), &patterns).unwrap().with_code(code);
    let mut read = Files::new(scope);
    read.update(files.iter().filter(|(path, _)| is_manifest(path)).map(|(path, text)| written(path, text)));
    read.desired(|wanted| {
        let file = files.iter().find(|(path, _)| *path == wanted.as_str());
        file.map(|(_, text)| text.clone().into_bytes())
    })
}

fn is_manifest(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == "yaml")
}

fn written(path: &str, text: &str) -> Change {
    Change::Written { path: path.parse().unwrap(), blob: text.to_owned(), bytes: text.as_bytes().to_vec() }
}

/// What is told about the files, and what they ask for.
fn told(desired: &Desired) -> String {
    let mut lines: Vec<String> = desired.diagnostics.iter().map(ToString::to_string).collect();
    for (id, item) in &desired.objects {
        lines.push(format!("{id} of {}:{}", item.path, item.at.line));
    }
    if desired.foreign > 0 {
        lines.push(format!("{} of other kinds", desired.foreign));
    }
    lines.join("\n")
}

#[test]
fn mistakes_are_told_with_their_places() {
    assert!(golden::run("manifest_cases", |files| told(&desired(files))) >= 10);
}

#[test]
fn every_code_has_a_case() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifest_cases");
    let texts = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let expected: String =
        texts.filter_map(|text| Some(text.split_once("=== expected\n")?.1.to_owned())).collect();
    let elsewhere = [Code::TooLarge, Code::NotText, Code::SpecChangedAfterRun];
    let schema = ["WrongType", "MissingField", "NotOneOf", "BadFormat", "OutOfBounds", "RuleBroken"];
    let own = Code::OWN.iter().filter(|code| !elsewhere.contains(code)).map(|code| code.as_str());
    let missing: Vec<&str> =
        own.chain(schema).filter(|code| !expected.contains(&format!(" {code}: "))).collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}

fn only_code(bytes: &[u8]) -> Vec<(Code, u32, u32)> {
    let scope = Scope::new("team".parse().unwrap(), &[]).unwrap();
    let outcome = ostler::manifest::parse(&"a.yaml".parse().unwrap(), bytes, &scope);
    assert!(outcome.failed() && outcome.opaque && outcome.objects.is_empty());
    outcome.diagnostics.iter().map(|told| (told.code, told.at.line, told.at.column)).collect()
}

#[test]
fn what_is_too_large_is_refused() {
    assert_eq!(only_code(&vec![b' '; (1 << 20) + 1]), [(Code::TooLarge, 1, 1)]);
    assert_eq!(only_code(b"a: \xff"), [(Code::NotText, 1, 1)]);
    assert_eq!(only_code("a: 1\n---\n".repeat(300).as_bytes()), [(Code::TooLarge, 513, 1)]);
    assert_eq!(only_code(format!("{}1", "- ".repeat(80)).as_bytes()), [(Code::TooLarge, 1, 131)]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{below}]\n");
    }
    let told = only_code(bomb.as_bytes());
    assert_eq!(told[0].0, Code::TooLarge, "{told:?}");
}

#[test]
fn only_changed_files_are_read() {
    let run = |n: usize, prompt: &str| {
        let text = format!(
            "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {{name: r{n}}}\nspec: {{task: {{prompt: {prompt}}}}}\n"
        );
        written(&format!("runs/{n}.yaml"), &text)
    };
    let mut files = Files::new(Scope::new("team".parse().unwrap(), &[]).unwrap());
    files.update((0..1000).map(|n| run(n, "a")));
    let before = files.desired(|_| None);
    assert_eq!((files.parsed(), before.objects.len()), (1000, 1000));
    files.update([run(7, "b"), run(8, "a")]);
    assert_eq!(files.parsed(), 1001, "the one that changed");
    let after = files.desired(|_| None);
    let changed = before.objects.iter().filter(|(id, item)| after.objects[*id] != **item).count();
    assert_eq!(changed, 1);
    files.update([Change::Removed("runs/7.yaml".parse::<RepoPath>().unwrap())]);
    assert_eq!(files.desired(|_| None).objects.len(), 999);
}

#[test]
fn a_prompt_file_becomes_an_immutable_map_named_by_its_content() {
    let run = "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: r}\nspec: {task: {promptFrom: {path: p.md}}}\n";
    let with = |prompt: &str| desired(&[("r.yaml".into(), run.into()), ("p.md".into(), prompt.into())]);
    let (one, same, other) = (with("Fix it."), with("Fix it."), with("Fix that."));
    assert_eq!(one, same);
    let map = |d: &Desired| d.objects.values().find(|i| i.value()["kind"] == "ConfigMap").unwrap().clone();
    let digest = |d: &Desired| d.objects.values().find_map(|i| i.digest.clone()).unwrap();
    assert_eq!(map(&one).value()["immutable"], true);
    assert_eq!(map(&one).value()["data"]["prompt"], "Fix it.");
    let name = map(&one).object.id.name.to_string();
    assert!(name.starts_with("ostler-prompt-") && name.len() == 30, "{name}");
    assert_ne!(name, map(&other).object.id.name.to_string());
    assert_ne!(digest(&one), digest(&other));
    let run = one.objects.values().find(|i| i.prompt.is_some()).unwrap();
    assert_eq!(run.prompt.as_ref().unwrap().as_str(), name);
}
