//! The layers, and a few habits of the house, as tests.

mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use scan::Source;

/// The layers, lowest first. Every module of the crate's root is in exactly one.
const LAYERS: [&[&str]; 5] = [
    &["class", "clock", "kinds", "names"],
    &[
        "egress",
        "ledger",
        "manifest",
        "plan",
        "ports",
        "presets",
        "report",
        "repositories",
        "resolve",
        "schema",
        "terminal",
    ],
    &["cache", "embedded", "git", "harness", "kubernetes", "proxy", "shim", "telemetry"],
    &["api", "controllers", "recorder", "sync"],
    &["cli", "main"],
];

/// Layers whose modules may use one another, as long as there is no circle: the vocabulary and the pure core.
const WOVEN: [usize; 2] = [0, 1];

/// Modules of one layer that may use another one of it: user (a module, or one file of it), used, why.
const NEIGHBOURS: [(&str, &str, &str); 8] = [
    ("harness", "git", "the sidecar clones the workspace and bundles the agent's commits"),
    ("harness", "proxy", "without a cluster, the sidecar is the proxy of its own run"),
    ("harness", "shim", "the sidecar speaks the shim's protocol"),
    ("kubernetes/callers", "proxy", "the callers of a cluster's proxy are pods, which the API server knows"),
    ("proxy/gateway", "git", "clones are passed on to a repository with its credential"),
    ("embedded/workloads", "harness", "a place is a sidecar process, addressed by its protocol"),
    ("kubernetes/workloads", "harness", "a place is a pod with a sidecar, addressed by its protocol"),
    ("kubernetes/workloads", "proxy", "a pod is told where the cluster's proxy is"),
];

/// What the pure layers may not name, and why.
const IMPURE: [(&str, &str); 20] = [
    ("tokio", "the core is synchronous"),
    ("tokio_util", "the core is synchronous"),
    ("kube::Client", "the core reaches objects by a port"),
    ("kube::client", "the core reaches objects by a port"),
    ("kube::runtime", "the core reaches objects by a port"),
    ("gix", "the core reads no repository"),
    ("axum", "the core serves nothing"),
    ("hyper", "the core serves nothing"),
    ("reqwest", "the core calls nobody"),
    ("redb", "the core stores nothing"),
    ("rustix", "the core does no I/O"),
    ("std::fs", "the core reads no file"),
    ("std::env", "settings are parameters"),
    ("std::net::TcpStream", "the core calls nobody"),
    ("std::process", "the core starts nothing"),
    ("SystemTime::now", "the clock is a parameter"),
    ("Timestamp::now", "the clock is a parameter"),
    ("Zoned::now", "the clock is a parameter"),
    ("Instant::now", "the clock is a parameter"),
    ("Uuid::new_v4", "randomness is a parameter"),
];

/// Where a pure file may name one of them after all: file, path, why.
const ALLOWED: [(&str, &str, &str); 2] = [
    (
        "ports/workloads.rs",
        "tokio::io",
        "a stream to a sidecar is described by tokio's traits; no I/O is done",
    ),
    (
        "ports/objects.rs",
        "kube::runtime",
        "a watch is a stream of kube's events, so that its reflectors work on it",
    ),
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];

const MOST_LINES: usize = 500;
const MANY_LINES: usize = 300;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file below a folder, sorted by path.
fn sources(folder: &str) -> Vec<Source> {
    let base = root().join(folder);
    let mut folders = vec![base.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push(Source::new(path.strip_prefix(&base).unwrap().to_str().unwrap(), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Modules of the crate's root that a file uses, besides its own.
fn uses(source: &Source) -> BTreeSet<String> {
    let paths = source.paths().into_iter();
    let own = source.top().to_owned();
    let of_crate = paths.filter(|p| p[0] == "crate" || p[0] == "ostler").filter_map(|p| p.get(1).cloned());
    of_crate.filter(|module| *module != own && layer(module).is_some()).collect()
}

fn is_neighbour(source: &Source, used: &str) -> bool {
    let of_file = |user: &str| {
        source.path.strip_prefix(user).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    };
    NEIGHBOURS.iter().any(|(user, to, _)| of_file(user) && *to == used)
}

/// What is wrong with the directions of one file.
fn wrong_directions(source: &Source) -> Vec<String> {
    let Some(own) = layer(source.top()) else { return Vec::new() };
    let wrong = uses(source).into_iter().filter(|used| {
        let theirs = layer(used).expect("uses() knows only modules of layers");
        let same = theirs == own && !WOVEN.contains(&own) && !is_neighbour(source, used);
        theirs > own || same
    });
    wrong.map(|used| format!("src/{} (L{own}) uses {used}", source.path)).collect()
}

/// `of` begins with `prefix` (`std::fs`), or holds it anywhere when it is a type's function (`Instant::now`).
fn names(of: &[String], prefix: &str) -> bool {
    let parts: Vec<&str> = prefix.split("::").collect();
    let of: Vec<&str> = of.iter().map(String::as_str).collect();
    if prefix.starts_with(char::is_uppercase) {
        of.windows(parts.len()).any(|window| window == parts)
    } else {
        of.starts_with(&parts)
    }
}

fn is_pure(source: &Source) -> bool {
    layer(source.top()).is_some_and(|layer| layer <= 1)
}

fn is_allowed(source: &Source, path: &[String]) -> bool {
    ALLOWED.iter().any(|(file, prefix, _)| source.path == *file && names(path, prefix))
}

/// What a pure file names that it may not.
fn impurities(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for path in source.paths() {
        for (impure, why) in IMPURE {
            if names(&path, impure) && !is_allowed(source, &path) {
                found.push(format!("src/{} names {}: {why}", source.path, path.join("::")));
            }
        }
    }
    found
}

/// A circle among the modules of the crate's root, if there is one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut left: BTreeMap<_, _> = graph.clone();
    loop {
        let free: Vec<String> = left
            .iter()
            .filter(|(_, used)| !used.iter().any(|u| left.contains_key(u)))
            .map(|(m, _)| m.clone())
            .collect();
        if free.is_empty() {
            return (!left.is_empty()).then(|| left.into_keys().collect::<Vec<_>>().join(", "));
        }
        left.retain(|module, _| !free.contains(module));
    }
}

#[test]
fn every_module_is_in_one_layer() {
    let modules: BTreeSet<String> =
        sources("src").iter().map(|s| s.top().to_owned()).filter(|top| !top.is_empty()).collect();
    let layered: Vec<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    let once: BTreeSet<&str> = layered.iter().copied().collect();
    assert_eq!(once.len(), layered.len(), "a module stands in two layers");
    let missing: Vec<_> = modules.iter().filter(|m| !once.contains(m.as_str())).collect();
    assert!(missing.is_empty(), "in no layer: {missing:?}");
    let gone: Vec<_> = once.iter().filter(|m| **m != "main" && !modules.contains(**m)).collect();
    assert!(gone.is_empty(), "in a layer but not in src: {gone:?}");
}

#[test]
fn modules_use_only_lower_layers() {
    let wrong: Vec<String> = sources("src").iter().flat_map(wrong_directions).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_do_not_depend_in_circles() {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources("src").iter().filter(|s| !s.top().is_empty()) {
        graph.entry(source.top().to_owned()).or_default().extend(uses(source));
    }
    assert_eq!(circle(&graph), None);
}

#[test]
fn the_core_does_nothing_to_the_world() {
    let found: Vec<String> = sources("src").iter().filter(|s| is_pure(s)).flat_map(impurities).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_exception_is_still_needed() {
    let sources = sources("src");
    for (file, prefix, why) in ALLOWED {
        let source = sources.iter().find(|s| s.path == file);
        let used = source.is_some_and(|s| s.paths().iter().any(|path| names(path, prefix)));
        assert!(used, "{file} no longer names {prefix} ({why}): take the exception away");
    }
}

#[test]
fn files_are_short_and_their_names_say_something() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            let parts: Vec<&str> = source.path.trim_end_matches(".rs").split('/').collect();
            if parts.last() == Some(&"mod") {
                wrong.push(format!("{folder}/{}: name the file after its module", source.path));
            }
            if let Some(part) = parts.iter().find(|part| EMPTY_NAMES.contains(part)) {
                wrong.push(format!("{folder}/{}: {part:?} says nothing", source.path));
            }
            match source.lines() {
                lines if lines > MOST_LINES => {
                    wrong.push(format!("{folder}/{} has {lines} lines, more than {MOST_LINES}", source.path));
                }
                lines if lines > MANY_LINES => eprintln!("{folder}/{} has {lines} lines", source.path),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What tests of the node say, which need root: CI runs all that say so, by `make test-node`.
const NEEDS_A_NODE: &str = "#[ignore = \"needs root and a node: make test-node\"]";

/// What tests of somebody's cluster say: `make test-node` runs `make test-cluster` beside a node.
const NEEDS_A_CLUSTER: &str = "#[ignore = \"needs a cluster: make test-cluster\"]";

#[test]
fn no_test_is_switched_off() {
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            let ignored = source.attributes().into_iter().filter(|&name| name == "ignore").count();
            let elsewhere = match source.path.as_str() {
                "it/anywhere/cluster.rs" => source.count(NEEDS_A_CLUSTER),
                "it/contract/workloads/node.rs" => source.count(NEEDS_A_NODE),
                path if path.starts_with("it/node/") => source.count(NEEDS_A_NODE),
                _ => 0,
            };
            assert_eq!(ignored, elsewhere, "{folder}/{} ignores a test", source.path);
        }
    }
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    assert!(read("Makefile").contains("--test it node:: -- --ignored"), "tests of the node are not run");
    assert!(
        read("Makefile").contains("--test it anywhere::cluster:: -- --ignored"),
        "a cluster's are not run"
    );
    let beside = "--example ostler-test-node -- \\\n\t  $(MAKE) --no-print-directory test-cluster";
    assert!(read("Makefile").contains(beside), "no cluster of ours runs them");
    assert!(read(".ci/run").contains("make --no-print-directory test-node"), "CI does not run them");
}

/// Modules below `tests/it` that `main.rs` does not declare: their tests would never run.
fn forgotten(declared: &str, modules: &BTreeSet<String>) -> Vec<String> {
    let is_declared = |module: &String| declared.lines().any(|line| line.trim() == format!("mod {module};"));
    modules.iter().filter(|module| *module != "main" && !is_declared(module)).cloned().collect()
}

#[test]
fn no_test_file_is_forgotten() {
    let folder = root().join("tests/it");
    let declared = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    let modules: BTreeSet<String> = sources("tests/it").iter().map(|s| s.top().to_owned()).collect();
    let modules = modules.into_iter().filter(|m| !m.is_empty()).collect();
    assert_eq!(forgotten(&declared, &modules), [""; 0]);
    let elsewhere: Vec<PathBuf> = std::fs::read_dir(root().join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    assert_eq!(elsewhere, Vec::<PathBuf>::new(), "autotests are off: only tests/it runs");
}

#[test]
fn the_rules_can_fail() {
    let wrong = |path: &str, text: &str| !wrong_directions(&Source::new(path, text)).is_empty();
    assert!(wrong("plan/order.rs", "use crate::git::Tree;"), "L1 uses L2");
    assert!(wrong("git.rs", "use crate::{names, proxy::Proxy};"), "L2 uses its neighbour");
    assert!(wrong("embedded/objects.rs", "use crate::harness::x;"), "only embedded/workloads may");
    assert!(wrong("git/fetch.rs", "use super::super::telemetry::Chain;"), "by way of super");
    assert!(wrong("recorder.rs", "fn f() { crate::sync::go() }"), "L3 uses its neighbour");
    assert!(!wrong("embedded/workloads/place.rs", "use crate::harness::x;"));
    assert!(!wrong("harness.rs", "use crate::{git::Tree, kinds::Agent};"));
    assert!(!wrong("plan.rs", "use crate::manifest::File;"), "the core may weave");
    assert!(!wrong("git.rs", "#[cfg(test)] mod tests { use crate::proxy::Proxy; }"));
}

#[test]
fn the_purity_can_fail() {
    let impure = |path: &str, text: &str| !impurities(&Source::new(path, text)).is_empty();
    assert!(impure("plan.rs", "use std::{collections::BTreeMap, fs};"));
    assert!(impure("plan.rs", "let now = jiff::Timestamp::now();"));
    assert!(impure("plan.rs", "use std::time::Instant; fn f() { Instant::now(); }"));
    assert!(impure("ports/access.rs", "use tokio::io::AsyncRead;"), "the exception is for one file");
    assert!(impure("ports/workloads.rs", "use tokio::fs::File;"), "the exception is for one path");
    assert!(!impure("ports/workloads.rs", "use tokio::io::AsyncRead;"));
    assert!(!impure("plan.rs", "use kube::core::DynamicObject; use jiff::Timestamp;"));
}

#[test]
fn a_circle_and_a_forgotten_file_are_found() {
    let edge = |to: &[&str]| to.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    let mut graph = BTreeMap::from([("a".to_owned(), edge(&["b"])), ("b".to_owned(), edge(&["c"]))]);
    assert_eq!(circle(&graph), None);
    graph.insert("c".to_owned(), edge(&["a"]));
    assert_eq!(circle(&graph).as_deref(), Some("a, b, c"));
    let modules = edge(&["main", "one", "two"]);
    assert_eq!(forgotten("//! tests\nmod one;\n", &modules), ["two"]);
}
