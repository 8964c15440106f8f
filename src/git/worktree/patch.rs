//! Changed files with their counts, and a patch that `git apply` takes.

use std::{fmt::Write as _, ops::Range};

use gix::{
    ObjectId, Repository,
    bstr::{BStr, ByteSlice},
    diff::blob::{Algorithm, Diff, Hunk, InternedInput, sources::byte_lines},
    objs::tree::EntryKind,
};

use crate::git::changes::{Changed, Leaf};

/// Unchanged lines around a change.
const CONTEXT: u32 = 3;

/// Bytes in which a NUL makes a file binary, as in Git.
const PROBE: usize = 8000;

/// One file that a run changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileChange {
    /// Its path; bytes outside UTF-8 replaced.
    pub path: String,
    /// Lines added; 0 for a binary file.
    pub additions: u64,
    /// Lines removed; 0 for a binary file.
    pub deletions: u64,
    /// Not compared line by line: it holds NUL bytes, or it is too long.
    pub binary: bool,
}

/// Collects patch text up to a limit; files are counted beyond it.
pub(super) struct Patch {
    pub(super) files: Vec<FileChange>,
    pub(super) text: Vec<u8>,
    pub(super) truncated: bool,
    limit: usize,
    /// Longest side of a file that is compared, bytes.
    file_limit: u64,
}

impl Patch {
    pub(super) fn new(limit: usize, file_limit: u64) -> Self {
        Self { files: Vec::new(), text: Vec::new(), truncated: false, limit, file_limit }
    }

    /// Adds one changed file. A file that became a symlink is one that went and one that came, as in Git.
    pub(super) fn add(&mut self, repository: &Repository, change: &Changed) -> gix::Result<()> {
        let path = change.path.as_bstr();
        let mut file =
            FileChange { path: path.to_str_lossy().into_owned(), additions: 0, deletions: 0, binary: false };
        match (change.old, change.new) {
            (Some(old), Some(new)) if family(old) != family(new) => {
                self.section(repository, path, Some(old), None, &mut file)?;
                self.section(repository, path, None, Some(new), &mut file)?;
            }
            (old, new) => self.section(repository, path, old, new, &mut file)?,
        }
        self.files.push(file);
        Ok(())
    }

    fn section(
        &mut self,
        repository: &Repository,
        path: &BStr,
        old: Option<Leaf>,
        new: Option<Leaf>,
        file: &mut FileChange,
    ) -> gix::Result<()> {
        let mut text = heading(path, old, new);
        let same = old.zip(new).is_some_and(|(old, new)| old.id == new.id);
        if !same {
            let (before, after) = (self.content(repository, old)?, self.content(repository, new)?);
            let lines = before.zip(after).filter(|(before, after)| !binary(before) && !binary(after));
            let sides = (side("a/", path, old), side("b/", path, new));
            if let Some((before, after)) = lines {
                hunks(&mut text, path, &sides, (&before, &after), file);
            } else {
                file.binary = true;
                text.extend_from_slice(
                    format!("Binary files {} and {} differ\n", sides.0, sides.1).as_bytes(),
                );
            }
        }
        if self.text.len() + text.len() > self.limit {
            self.truncated = true;
        } else {
            self.text.append(&mut text);
        }
        Ok(())
    }

    /// None when it is too long to compare.
    fn content(&self, repository: &Repository, leaf: Option<Leaf>) -> gix::Result<Option<Vec<u8>>> {
        let Some(leaf) = leaf else { return Ok(Some(Vec::new())) };
        if leaf.mode.is_commit() {
            return Ok(Some(format!("Subproject commit {}\n", leaf.id).into_bytes()));
        }
        if repository.find_header(leaf.id)?.size() > self.file_limit {
            return Ok(None);
        }
        Ok(Some(repository.find_object(leaf.id)?.detach().data))
    }
}

fn family(leaf: Leaf) -> u8 {
    match leaf.mode.kind() {
        EntryKind::Link => 1,
        EntryKind::Commit => 2,
        _ => 0,
    }
}

fn binary(content: &[u8]) -> bool {
    content[..content.len().min(PROBE)].contains(&0)
}

fn heading(path: &BStr, old: Option<Leaf>, new: Option<Leaf>) -> Vec<u8> {
    let id = |leaf: Option<Leaf>| leaf.map_or(ObjectId::null(gix::hash::Kind::Sha1), |leaf| leaf.id);
    let mode = |leaf: Leaf| format!("{:06o}", leaf.mode.value());
    let (modes, kept) = match (old, new) {
        (None, Some(new)) => (format!("new file mode {}\n", mode(new)), String::new()),
        (Some(old), None) => (format!("deleted file mode {}\n", mode(old)), String::new()),
        (Some(old), Some(new)) if old.mode != new.mode => {
            (format!("old mode {}\nnew mode {}\n", mode(old), mode(new)), String::new())
        }
        (Some(old), _) => (String::new(), format!(" {}", mode(old))),
        (None, None) => (String::new(), String::new()),
    };
    let (old, new) = (id(old), id(new));
    let index = if old == new { String::new() } else { format!("index {old}..{new}{kept}\n") };
    format!("diff --git {} {}\n{modes}{index}", quoted("a/", path), quoted("b/", path)).into_bytes()
}

fn side(prefix: &str, path: &BStr, leaf: Option<Leaf>) -> String {
    if leaf.is_some() { quoted(prefix, path) } else { "/dev/null".to_owned() }
}

/// As `core.quotePath` has it: C escapes in double quotes when a byte needs them.
fn quoted(prefix: &str, path: &BStr) -> String {
    let plain = path.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\');
    if plain {
        return format!("{prefix}{path}");
    }
    let mut out = format!("\"{prefix}");
    for byte in path.iter() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            0x20..0x7f => out.push(char::from(*byte)),
            _ => write!(out, "\\{byte:03o}").expect("writing to a string cannot fail"),
        }
    }
    out.push('"');
    out
}

fn hunks(
    text: &mut Vec<u8>,
    path: &BStr,
    (from, to): &(String, String),
    (before, after): (&[u8], &[u8]),
    file: &mut FileChange,
) {
    let input = InternedInput::new(byte_lines(before), byte_lines(after));
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    file.additions += u64::from(diff.count_additions());
    file.deletions += u64::from(diff.count_removals());
    let all: Vec<Hunk> = diff.hunks().collect();
    if all.is_empty() {
        return;
    }
    // A tab ends a name that holds blanks (git-diff(1)).
    let tab = if path.contains(&b' ') { "\t" } else { "" };
    text.extend_from_slice(format!("--- {from}{tab}\n+++ {to}{tab}\n").as_bytes());
    let (before, after): (Vec<&[u8]>, Vec<&[u8]>) =
        (byte_lines(before).collect(), byte_lines(after).collect());
    for group in grouped(&all) {
        group_text(text, group, &before, &after);
    }
}

/// Changes whose context would touch go together.
fn grouped(all: &[Hunk]) -> impl Iterator<Item = &[Hunk]> {
    all.chunk_by(|a, b| b.before.start - a.before.end <= 2 * CONTEXT)
}

fn group_text(text: &mut Vec<u8>, group: &[Hunk], before: &[&[u8]], after: &[&[u8]]) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let lead = first.before.start.min(CONTEXT);
    let tail = (u32::try_from(before.len()).unwrap_or(u32::MAX) - last.before.end).min(CONTEXT);
    let old = first.before.start - lead..last.before.end + tail;
    let new = first.after.start - lead..last.after.end + tail;
    text.extend_from_slice(format!("@@ -{} +{} @@\n", span(&old), span(&new)).as_bytes());
    let mut at = old.start;
    for hunk in group {
        lines(text, b' ', &before[range(at..hunk.before.start)]);
        lines(text, b'-', &before[range(hunk.before.clone())]);
        lines(text, b'+', &after[range(hunk.after.clone())]);
        at = hunk.before.end;
    }
    lines(text, b' ', &before[range(at..old.end)]);
}

/// Lines count from 1, except that an empty span names the line before it.
fn span(range: &Range<u32>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => format!("{}", range.start + 1),
        n => format!("{},{n}", range.start + 1),
    }
}

fn range(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn lines(text: &mut Vec<u8>, mark: u8, lines: &[&[u8]]) {
    for line in lines {
        text.push(mark);
        text.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            text.extend_from_slice(b"\n\\ No newline at end of file\n");
        }
    }
}
