//! Pages of lists: what goes into a `continue`, and how many are read at once.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Problem;
use crate::{kinds::Kind, names::Namespace, ports::objects::Labels};

/// Pages that are read at once. A page holds at most 500 objects, so this bounds memory and the load on the store.
const AT_ONCE: usize = 16;
/// Longest `continue`; an API server's words are about a hundred bytes longer than a namespace and a name.
const MAX_TOKEN_BYTES: usize = 2048;
/// Bytes of the hash that says of which list a `continue` is.
const LIST_BYTES: usize = 8;

/// Places for those who read a page.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Places {
    /// A place, until it is dropped. Nobody waits: whoever waits holds memory too.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| Problem::too_many_lists())
    }
}

/// Which list a page is of.
pub(super) struct List<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: Option<&'a Namespace>,
    pub(super) labels: &'a Labels,
}

impl List<'_> {
    /// The `continue` that stands for the store's words.
    pub(super) fn token(&self, words: &str) -> String {
        URL_SAFE_NO_PAD.encode([&self.hash()[..], words.as_bytes()].concat())
    }

    /// The store's words, if the token was made for this list. It is no secret and proves nothing: who asks is
    /// authorised for each page.
    pub(super) fn words(&self, token: &str) -> Result<String, Problem> {
        let read = || {
            let bytes = (token.len() <= MAX_TOKEN_BYTES).then(|| URL_SAFE_NO_PAD.decode(token).ok())??;
            let (list, words) = bytes.split_at_checked(LIST_BYTES)?;
            (list == self.hash()).then(|| String::from_utf8(words.to_vec()).ok())?
        };
        read().ok_or_else(Problem::no_such_page)
    }

    fn hash(&self) -> [u8; LIST_BYTES] {
        let namespace = self.namespace.map_or("*", Namespace::as_str);
        let list = format!("{}\n{namespace}\n{}", self.kind, self.labels);
        let mut hash = [0; LIST_BYTES];
        hash.copy_from_slice(&Sha256::digest(list)[..LIST_BYTES]);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_list_only() {
        let (team, other): (Namespace, Namespace) = ("team".parse().unwrap(), "other".parse().unwrap());
        let (any, web): (Labels, Labels) = (Labels::default(), "app=web".parse().unwrap());
        let list = List { kind: Kind::Session, namespace: Some(&team), labels: &any };
        let token = list.token("team/a");
        assert_eq!(list.words(&token).unwrap(), "team/a");
        for other in [
            List { kind: Kind::Agent, namespace: Some(&team), labels: &any },
            List { kind: Kind::Session, namespace: Some(&other), labels: &any },
            List { kind: Kind::Session, namespace: None, labels: &any },
            List { kind: Kind::Session, namespace: Some(&team), labels: &web },
        ] {
            assert_eq!(other.words(&token).unwrap_err(), Problem::no_such_page());
        }
        for bad in ["", "!", "AAAA", &token[1..], &list.token(&"x".repeat(MAX_TOKEN_BYTES))] {
            assert_eq!(list.words(bad).unwrap_err(), Problem::no_such_page(), "{bad}");
        }
    }
}
