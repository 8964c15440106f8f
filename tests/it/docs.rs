//! The documents: their links lead somewhere, and `docs/manifests.md` names every field.

use std::path::{Path, PathBuf};

use ostler::{kinds::Kind, schema};
use serde_json::Value;

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
            let target = document.parent().unwrap_or(Path::new("")).join(link);
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

#[test]
fn links_are_found() {
    assert_eq!(links("[a](b.md#c) [d](https://example.com) [e](#f) [g](../h)"), ["b.md", "../h"]);
}
