//! The documents: their links lead somewhere, `docs/manifests.md` names every field, and their commands do what they say.
//!
//! Blocks of a document that are marked `sh run` are one script, from the first to the last. It runs in a folder like a
//! checkout of ostler. A line that ends with `# exit N` must end with that code, each other line with 0.

use std::path::{Path, PathBuf};

use ostler::{kinds::Kind, schema};
use serde_json::Value;

use crate::examples::Sandbox;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/design", "charts", "examples/repo-layout", "examples/code-project"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        found.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    found
}

/// Relative targets of Markdown links.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 10, "{documents:?}");
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let target = document.parent().unwrap_or_else(|| Path::new("")).join(link);
            assert!(target.exists(), "{} links to {link}", document.display());
        }
    }
}

/// Names of all fields at and below a schema.
fn fields(schema: &Value, found: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            found.push(name.clone());
            fields(property, found);
        }
    }
    if schema["items"].is_object() {
        fields(&schema["items"], found);
    }
}

#[test]
fn the_manifest_page_names_every_field() {
    let page = std::fs::read_to_string(root().join("docs/manifests.md")).unwrap();
    for kind in Kind::OURS {
        let heading = format!("## {kind}\n");
        let section = page.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {kind}"));
        let section = section.split("\n## ").next().unwrap();
        let mut wanted = Vec::new();
        fields(&schema::json_schema(kind)["properties"]["spec"], &mut wanted);
        assert!(!wanted.is_empty(), "{kind} has no fields?");
        for field in wanted {
            let named =
                [format!("`{field}`"), format!(".{field}`")].iter().any(|form| section.contains(form));
            assert!(named, "docs/manifests.md, section {kind}, does not name {field}");
        }
    }
}

/// The lines of a document that are meant to be run.
fn runnable(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh run\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest));
    blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).collect()
}

/// Bash for one line: it must end with the code it names.
fn checked(line: &str) -> String {
    let (command, code) = line.rsplit_once("# exit ").unwrap_or((line, "0"));
    let code: u8 = code.trim().parse().unwrap_or_else(|_| panic!("no exit code: {line}"));
    let command = command.split(" # ").next().unwrap_or(command);
    if code == 0 {
        return command.to_owned();
    }
    format!("code=0\n{command} || code=$?\n[[ $code == {code} ]] || {{ echo \"exit code $code\"; exit 1; }}")
}

#[test]
fn the_commands_of_documents_do_what_they_say() {
    let mut ran = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let lines = runnable(&text);
        if lines.is_empty() {
            continue;
        }
        let script: Vec<String> = lines.into_iter().map(checked).collect();
        let (passed, said) = Sandbox::new().bash(&format!("set -x\n{}\n", script.join("\n")), "ostler");
        assert!(passed, "{}\n{said}", document.display());
        ran.push(document.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    }
    ran.sort();
    assert_eq!(ran, ["README.md", "docs/operations.md", "examples/repo-layout/README.md"]);
}

#[test]
fn runnable_lines_are_found_and_checked() {
    let text =
        "a\n```sh run\none  # why\n\ntwo # exit 1\n```\nb\n```sh\nnot this\n```\n```sh run\nthree\n```\n";
    assert_eq!(runnable(text), ["one  # why", "two # exit 1", "three"]);
    assert_eq!(checked("one  # why").trim_end(), "one");
    let sandbox = Sandbox::new();
    assert!(sandbox.bash(&checked("(exit 3) # exit 3"), "home").0);
    assert!(!sandbox.bash(&checked("(exit 2) # exit 3"), "home").0);
    assert!(!sandbox.bash(&checked("false"), "home").0);
}

#[test]
fn links_are_found() {
    assert_eq!(links("[a](b.md#c) [d](https://example.com) [e](#f) [g](../h)"), ["b.md", "../h"]);
}
