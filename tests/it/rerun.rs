//! `scripts/test.sh` on a small crate of its own: what is run once more, and what is not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const MANIFEST: &str = r#"
[package]
name = "tiny"
version = "0.1.0"
edition = "2024"
autotests = false
[lib]
doctest = false
[[test]]
name = "it"
path = "tests/it/main.rs"
"#;

/// A test for each letter of `FLAKY` fails the first time, one for `BROKEN` always, and with `ABORT` a program breaks off.
const LIB: &str = r#"
pub fn fails_first(letter: char) {
    let wanted = |name: &str| std::env::var(name).unwrap_or_default().contains(letter);
    assert!(!wanted("BROKEN"), "always {letter}");
    let seen = std::path::Path::new(&std::env::var("SEEN").unwrap()).join(letter.to_string());
    if wanted("FLAKY") {
        assert!(std::fs::File::create_new(seen).is_err(), "only now: {letter}");
    }
    if wanted("ABORT") {
        std::process::abort();
    }
}
#[cfg(test)]
mod tests {
    #[test]
    fn a() { super::fails_first('a') }
    #[test]
    fn ab() { super::fails_first('b') }
}
"#;

const IT: &str = r"
#[test]
fn c() { tiny::fails_first('c') }
#[test]
fn d() { tiny::fails_first('d') }
";

struct Tiny(tempfile::TempDir);

struct Ended {
    passed: bool,
    said: String,
    flaky: Vec<Value>,
}

impl Tiny {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test.sh");
        let tiny = Self(folder);
        for (path, text) in [
            ("Cargo.toml", MANIFEST),
            ("src/lib.rs", LIB),
            ("tests/it/main.rs", IT),
            ("scripts/test.sh", &fs::read_to_string(script).unwrap()),
        ] {
            let path = tiny.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let locked = tiny.command("cargo").args(["generate-lockfile", "--offline"]).output().unwrap();
        assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
        tiny
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("CARGO_TARGET_DIR", self.path("target"));
        for name in
            ["CI", "FLAKY", "BROKEN", "ABORT", "OSTLER_TEST_REPORT", "CARGO_TERM_COLOR", "RUST_TEST_THREADS"]
        {
            command.env_remove(name);
        }
        command
    }

    /// Runs the script as new, with these variables.
    fn run(&self, variables: &[(&str, &str)]) -> Ended {
        let (seen, report) = (self.path("seen"), self.path("target/test-report"));
        for folder in [&seen, &report] {
            let _ = fs::remove_dir_all(folder);
        }
        fs::create_dir(&seen).unwrap();
        let ran = self
            .command("bash")
            .args(["scripts/test.sh", "part"])
            .env("SEEN", &seen)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let flaky = fs::read_to_string(report.join("flaky.jsonl")).unwrap_or_default();
        Ended {
            passed: ran.status.success(),
            said: String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned(),
            flaky: flaky.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        }
    }
}

const CI: (&str, &str) = ("CI", "true");

#[test]
fn few_failures_are_run_once_more_and_named() {
    let tiny = Tiny::new();
    let well = tiny.run(&[CI]);
    assert!(well.passed && well.flaky.is_empty(), "{}", well.said);

    let flaky = tiny.run(&[CI, ("FLAKY", "acd")]);
    assert!(flaky.passed, "{}", flaky.said);
    let mut named: Vec<_> = flaky.flaky.iter().map(|test| test["test"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, ["c", "d", "tests::a"]);
    let of_c = flaky.flaky.iter().find(|test| test["test"] == "c").unwrap();
    let output = of_c["output"].as_str().unwrap();
    assert!(output.contains("only now: c") && !output.contains("only now: d"), "{output}");
    assert_eq!(of_c["part"], "part");

    let without = tiny.run(&[("FLAKY", "a")]);
    assert!(!without.passed && without.flaky.is_empty(), "only where CI is set: {}", without.said);
}

#[test]
fn nothing_else_is_forgiven() {
    let tiny = Tiny::new();
    for (what, variables, words) in [
        ("a test that fails again", &[CI, ("FLAKY", "a"), ("BROKEN", "c")][..], "always c"),
        ("more than three", &[CI, ("FLAKY", "abcd")], "4 tests have failed; nothing is run again"),
        ("a program that breaks off", &[CI, ("FLAKY", "c"), ("ABORT", "b")], "broke off"),
    ] {
        let ended = tiny.run(variables);
        assert!(!ended.passed && ended.said.contains(words), "{what}: {}", ended.said);
    }
    fs::write(tiny.path("src/lib.rs"), "no Rust").unwrap();
    let ended = tiny.run(&[CI]);
    assert!(!ended.passed && ended.said.contains("it was not built"), "{}", ended.said);
}
