//! The raw form of a tree, to the letter: what Git itself would write, and names that are safe on every system.

use gix::{
    ObjectId,
    bstr::ByteSlice,
    validate::path::component::{Mode, Options},
};

use super::Flaw;

/// What an entry refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tree,
    Blob,
    /// A commit of another repository, which is not ours to have.
    Submodule,
}

/// Longest file name, bytes (`NAME_MAX` of Linux).
const MAX_NAME: usize = 255;

/// Windows device names such as `aux.c` exist in honest repositories; the rest would be mischief.
const PROTECT: Options = Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };

/// Reads a whole tree object.
pub(super) fn entries(mut raw: &[u8]) -> Result<Vec<(Kind, ObjectId)>, Flaw> {
    let mut entries = Vec::new();
    let mut before: Option<Vec<u8>> = None;
    while !raw.is_empty() {
        let (mode, rest) = raw.split_once_str(b" ").ok_or(Flaw::Malformed)?;
        let (name, rest) = rest.split_once_str(b"\0").ok_or(Flaw::Malformed)?;
        let (id, rest) = rest.split_at_checked(20).ok_or(Flaw::Malformed)?;
        let kind = kind(mode, name)?;
        safe(name, mode)?;
        // Git sorts folders as if their names ended in a slash.
        let mut key = name.to_vec();
        if kind == Kind::Tree {
            key.push(b'/');
        }
        let twice = |before: &Vec<u8>| before.strip_suffix(b"/").unwrap_or(before) == name;
        if before.as_ref().is_some_and(|before| *before >= key || twice(before)) {
            return Err(Flaw::Order);
        }
        before = Some(key);
        entries.push((kind, ObjectId::from_bytes_or_panic(id)));
        raw = rest;
    }
    Ok(entries)
}

fn kind(mode: &[u8], name: &[u8]) -> Result<Kind, Flaw> {
    match mode {
        b"40000" => Ok(Kind::Tree),
        b"100644" | b"100755" | b"120000" => Ok(Kind::Blob),
        b"160000" => Ok(Kind::Submodule),
        _ => Err(Flaw::Mode { name: shown(name), mode: shown(mode) }),
    }
}

/// A backslash is a character like any other here (systemd has files with it) and separates folders on Windows.
fn safe(name: &[u8], mode: &[u8]) -> Result<(), Flaw> {
    let mode = (mode == b"120000").then_some(Mode::Symlink);
    let valid = |name: &[u8]| gix::validate::path::component(name.as_bstr(), mode, PROTECT).is_ok();
    let parts = || name.split(|b| *b == b'\\').filter(|part| !part.is_empty());
    let sound = name.len() <= MAX_NAME && valid(name) && parts().all(valid);
    if sound { Ok(()) } else { Err(Flaw::Name(shown(name))) }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        entries
            .iter()
            .flat_map(|(mode, name)| [format!("{mode} {name}\0").as_bytes(), &[7; 20]].concat())
            .collect()
    }

    #[test]
    fn honest_trees_pass() {
        let raw = tree(&[
            ("100644", ".gitignore"),
            ("100755", "a.sh"),
            ("40000", "a"),
            ("120000", "aux\\x2d.c"),
            ("160000", "sub"),
        ]);
        let kinds: Vec<_> = entries(&raw).unwrap().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Blob, Kind::Blob, Kind::Tree, Kind::Blob, Kind::Submodule]);
    }

    #[test]
    fn names_that_escape_are_refused() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            "git~1",
            ".git ",
            ".git.",
            ".git::$INDEX_ALLOCATION",
            ".g\u{200c}it",
            "..",
            ".",
            "",
            "a/b",
            "..\\b",
            "a\\.git\\hooks",
        ] {
            assert!(matches!(entries(&tree(&[("40000", name)])), Err(Flaw::Name(_))), "{name:?}");
        }
        assert!(matches!(entries(&tree(&[("120000", ".gitmodules")])), Err(Flaw::Name(_))));
        assert!(matches!(entries(&tree(&[("100644", &"n".repeat(256))])), Err(Flaw::Name(_))));
    }

    #[test]
    fn odd_modes_and_orders_are_refused() {
        for mode in ["100666", "0100644", "040000", "140000", "100777", "1", ""] {
            assert!(matches!(entries(&tree(&[(mode, "a")])), Err(Flaw::Mode { .. })), "{mode}");
        }
        assert_eq!(entries(&tree(&[("100644", "b"), ("100644", "a")])), Err(Flaw::Order));
        assert_eq!(entries(&tree(&[("100644", "a"), ("100644", "a")])), Err(Flaw::Order));
        assert_eq!(entries(&tree(&[("100644", "a"), ("40000", "a")])), Err(Flaw::Order));
        assert_eq!(entries(b"100644 a\0short"), Err(Flaw::Malformed));
    }
}
