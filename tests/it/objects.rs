//! The embedded Objects port: its contract, and what is its own.

use std::sync::Arc;

use ostler::{embedded::objects::EmbeddedStore, ports::objects::Store};

use crate::contract::objects::{Ground, all};

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
    all(async |case| Ground { store: Arc::clone(&store), namespace: case.parse().unwrap() }).await;
}
