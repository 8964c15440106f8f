//! Cases as text files: sections that start with `=== name`, the last of them `=== expected`.
//!
//! A case that fails prints what it got. With `OSTLER_BLESS=1` the expected section is written anew; look at the
//! difference before you commit it.

use std::{fs, path::Path};

/// The sections of a case, by name, without the expected one.
pub(crate) type Sections = Vec<(String, String)>;

/// Runs `subject` on every case of a folder below `tests/it` and compares what it says. Returns how many there were.
pub(crate) fn run(folder: &str, subject: impl Fn(&Sections) -> String) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut failures = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let (input, expected) = text.split_once("=== expected\n").unwrap_or((&text, ""));
        let got = subject(&sections(input));
        if got.trim_end() == expected.trim_end() {
            continue;
        }
        if std::env::var_os("OSTLER_BLESS").is_some() {
            fs::write(file, format!("{input}=== expected\n{}\n", got.trim_end())).unwrap();
        } else {
            failures.push(format!("{}\n--- expected\n{expected}\n--- got\n{got}", file.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases\n{}", failures.len(), files.len(), failures.join("\n"));
    files.len()
}

fn sections(input: &str) -> Sections {
    let mut sections = Sections::new();
    for line in input.split_inclusive('\n') {
        match (line.strip_prefix("=== "), sections.last_mut()) {
            (Some(name), _) => sections.push((name.trim().to_owned(), String::new())),
            (None, Some((_, body))) => body.push_str(line),
            (None, None) => {}
        }
    }
    sections
}
