//! The last bytes of a stream, each with its number.

use std::collections::VecDeque;

/// Keeps the last bytes of a stream. The first byte of the stream has number 0.
#[derive(Debug)]
pub struct Ring {
    kept: VecDeque<u8>,
    capacity: usize,
    end: u64,
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The number of its first byte.
    pub from: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Ring {
    /// What an attached terminal may fall behind without losing a byte (DESIGN, section 6: at least 8 MiB).
    pub const CAPACITY: usize = 8 << 20;

    /// An empty ring that keeps so many bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { kept: VecDeque::new(), capacity, end: 0 }
    }

    /// The number of the oldest byte that is kept.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.end - self.kept.len() as u64
    }

    /// The number that the next byte will have; the length of the stream.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes in what comes next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let news = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let excess = (self.kept.len() + news.len()).saturating_sub(self.capacity);
        self.kept.drain(..excess);
        self.kept.extend(news);
    }

    /// At most `limit` bytes from number `since` on; when that is no longer kept, from the oldest on.
    #[must_use]
    pub fn since(&self, since: u64, limit: usize) -> Piece {
        let from = since.clamp(self.start(), self.end);
        let skip = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        let last = skip.saturating_add(limit).min(self.kept.len());
        Piece { from, bytes: self.kept.range(skip..last).copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reader_who_falls_behind_sees_from_where_on() {
        let mut ring = Ring::new(4);
        ring.push(b"abcdef");
        assert_eq!(ring.since(0, 9), Piece { from: 2, bytes: b"cdef".to_vec() });
        assert_eq!(ring.since(3, 2), Piece { from: 3, bytes: b"de".to_vec() });
        assert_eq!(ring.since(99, 9), Piece { from: 6, bytes: vec![] });
    }

    proptest! {
        #[test]
        fn it_is_the_tail_of_the_stream(
            pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            capacity in 1..64usize,
            since in 0..600u64,
        ) {
            let mut ring = Ring::new(capacity);
            let mut stream = Vec::new();
            for push in &pushes {
                ring.push(push);
                stream.extend_from_slice(push);
            }
            let piece = ring.since(since, usize::MAX);
            prop_assert_eq!(ring.end(), stream.len() as u64);
            prop_assert_eq!(piece.from, since.clamp(stream.len().saturating_sub(capacity) as u64, ring.end()));
            prop_assert_eq!(&piece.bytes[..], &stream[usize::try_from(piece.from).unwrap()..]);
        }
    }
}
