//! Names as labels, as many as a process can keep.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// The most names that one label takes: repositories, and routes of the API.
pub const MAX_NAMES: usize = 128;

/// The first [`MAX_NAMES`] names; what comes later is `other`.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeSet<String>>);

impl Names {
    pub(super) fn bounded(&self, name: String) -> String {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(&name) {
            if seen.len() >= MAX_NAMES {
                return "other".to_owned();
            }
            seen.insert(name.clone());
        }
        name
    }
}
