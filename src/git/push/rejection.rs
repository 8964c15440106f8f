//! Why a server left a reference where it was, read from the words of receive-pack and of forges.

/// Longest text of a hook or server that is kept, bytes.
pub(super) const MAX_TEXT: usize = 4096;

/// Why one reference did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Somebody else moved it first: fetch, build again, push again.
    #[error("somebody else moved it first")]
    Stale,
    /// The new commit does not descend from what it would replace; we never force.
    #[error("the new commit does not descend from the old one")]
    NotFastForward,
    /// Nothing was wrong with this one, but another of the same atomic push was rejected.
    #[error("another reference of the same push was rejected")]
    Aborted,
    /// A hook or a protection rule said no.
    #[error("declined: {text}")]
    Declined {
        /// What it printed, or the server's reason.
        text: String,
    },
    /// Anything else.
    #[error("rejected: {reason}")]
    Other {
        /// The server's reason.
        reason: String,
    },
}

impl Rejection {
    /// `reason` is the server's word for one reference, `text` what it printed for the whole push.
    pub(super) fn classify(reason: &str, text: &str) -> Self {
        let has = |needle: &str| reason.contains(needle);
        let printed = |needle: &str| text.contains(needle) || reason.contains(needle);
        if has("declined") || has("protected branch") || has("prohibited by") {
            let text = if text.trim().is_empty() { reason } else { text };
            return Self::Declined { text: text.trim().to_owned() };
        }
        // A lock that another pusher holds, or a value that changed between advertisement and update. A name that
        // is both a file and a folder of references is no race.
        let raced = has("failed to update ref")
            || has("failed to lock")
            || has("cannot lock ref")
            || has("atomic transaction failed");
        let names_collide = printed("cannot create") || printed("exists; ");
        if has("fetch first")
            || has("stale info")
            || has("incorrect old value")
            || has("reference already exists")
            || (raced && !names_collide)
        {
            return Self::Stale;
        }
        if has("atomic push fail") || has("transaction aborted") {
            return Self::Aborted;
        }
        if has("non-fast-forward") {
            return Self::NotFastForward;
        }
        Self::Other { reason: reason.to_owned() }
    }
}

/// Makes a server's bytes safe to show: no escape sequences, no control characters but line ends, bounded.
pub(super) fn sanitize(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if out.len() >= MAX_TEXT {
            break;
        }
        match c {
            // A control sequence ends with a byte of @ to ~ (ECMA-48).
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                chars.next();
            }
            '\r' | '\n' if !out.is_empty() && !out.ends_with('\n') => out.push('\n'),
            '\t' => out.push(' '),
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) => {}
            c => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_servers_have_a_class() {
        let declined = |text: &str| Rejection::Declined { text: text.into() };
        for (reason, text, expected) in [
            (
                "failed to update ref",
                "cannot lock ref 'refs/heads/m': is at a but expected b",
                Rejection::Stale,
            ),
            (
                "atomic transaction failed",
                "cannot lock ref 'refs/heads/m': is at a but expected b",
                Rejection::Stale,
            ),
            ("fetch first", "", Rejection::Stale),
            ("pre-receive hook declined", "no Friday pushes\n", declined("no Friday pushes")),
            ("protected branch hook declined", "", declined("protected branch hook declined")),
            ("atomic push failure", "", Rejection::Aborted),
            ("non-fast-forward", "", Rejection::NotFastForward),
            (
                "failed to update ref",
                "cannot lock ref 'refs/heads/a/b': 'refs/heads/a' exists; cannot create 'refs/heads/a/b'",
                Rejection::Other { reason: "failed to update ref".into() },
            ),
            (
                "branch is currently checked out",
                "",
                Rejection::Other { reason: "branch is currently checked out".into() },
            ),
        ] {
            assert_eq!(Rejection::classify(reason, text), expected, "{reason}");
        }
    }

    #[test]
    fn text_of_a_server_cannot_drive_a_terminal() {
        assert_eq!(sanitize(b"\x1b[31mred\x1b[0m\r\n\r\n\x07two\tthree\x1b]0;t"), "red\ntwo three]0;t");
        assert_eq!(sanitize("a\u{202e}b".as_bytes()), "ab");
        assert!(sanitize(&vec![b'x'; 1 << 20]).len() <= MAX_TEXT);
    }
}
