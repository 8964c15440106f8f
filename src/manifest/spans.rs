//! Where everything stands in a document.

use std::collections::HashMap;

use super::Position;

/// Where the parts of a document stand, by JSON pointer.
#[derive(Debug, Default)]
pub(super) struct Spans {
    keys: HashMap<String, Position>,
    values: HashMap<String, Position>,
}

impl Spans {
    /// Where a value stands; for one that has no place of its own (an alias, a missing field) the next one above.
    pub(super) fn value(&self, pointer: &str) -> Position {
        Self::nearest(&self.values, pointer)
    }

    /// Where the key of a field stands.
    pub(super) fn key(&self, pointer: &str) -> Position {
        self.keys.get(pointer).copied().unwrap_or_else(|| self.value(pointer))
    }

    fn nearest(places: &HashMap<String, Position>, mut pointer: &str) -> Position {
        loop {
            if let Some(place) = places.get(pointer) {
                return *place;
            }
            match pointer.rsplit_once('/') {
                Some((parent, _)) => pointer = parent,
                None => return Position { line: 1, column: 1 },
            }
        }
    }

    /// The place of a key that was read already.
    pub(super) fn known_key(&self, pointer: &str) -> Option<Position> {
        self.keys.get(pointer).copied()
    }

    pub(super) fn put_key(&mut self, pointer: &str, place: Position) {
        self.keys.insert(pointer.to_owned(), place);
    }

    pub(super) fn put_value(&mut self, pointer: &str, place: Position) {
        self.values.insert(pointer.to_owned(), place);
    }
}
