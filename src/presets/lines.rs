//! Lines out of a stream of bytes, bounded.

/// The longest line that is read; agents put whole files and transcripts into one.
pub(super) const LINE_BYTES: usize = 16 * 1024 * 1024;
/// What is kept of the head of a longer line.
const HEAD_BYTES: usize = 256;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The head of one that is too long.
    Head(&'a [u8]),
}

/// Cuts a stream into lines and keeps at most one of them.
#[derive(Debug, Default)]
pub(super) struct Lines {
    kept: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes in a piece of the stream and gives out the lines that end in it.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(Line<'_>)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            self.keep(&rest[..at]);
            self.end(&mut line);
            rest = &rest[at + 1..];
        }
        self.keep(rest);
    }

    /// Gives out what stands after the last line's end.
    pub(super) fn end(&mut self, line: &mut impl FnMut(Line<'_>)) {
        if self.too_long {
            line(Line::Head(&self.kept));
        } else if !self.kept.is_empty() {
            line(Line::Whole(&self.kept));
        }
        self.kept.clear();
        self.too_long = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.too_long {
            return;
        }
        if self.kept.len() + bytes.len() <= LINE_BYTES {
            self.kept.extend_from_slice(bytes);
            return;
        }
        self.too_long = true;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES)]);
        self.kept.truncate(HEAD_BYTES);
        self.kept.shrink_to_fit();
    }
}
