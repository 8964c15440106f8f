//! Lists: how many at once, and whose `continue` it is.

use std::{path::Path, sync::Arc};

use axum::{body::Body, http::Request};
use ostler::{
    api,
    embedded::objects::{EmbeddedStore, connect, serve},
    ports::objects::Store,
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tower::ServiceExt;

use super::{get, reader, state};

/// As many lists as may be read at once.
const AT_ONCE: usize = 16;

/// A socket in front of a store's, which passes nothing on until it may. Counts who came.
async fn gate(path: &Path, behind: &Path, came: watch::Sender<usize>, open: watch::Receiver<bool>) {
    let listener = UnixListener::bind(path).unwrap();
    loop {
        let (mut front, _) = listener.accept().await.unwrap();
        let (behind, mut open) = (behind.to_owned(), open.clone());
        came.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            open.wait_for(|open| *open).await.unwrap();
            let mut back = UnixStream::connect(behind).await.unwrap();
            // the end of a connection is no concern of the gate
            let _ = copy_bidirectional(&mut front, &mut back).await;
        });
    }
}

#[tokio::test]
async fn no_more_lists_are_read_than_may_be_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (front, behind) = (folder.path().join("front"), folder.path().join("behind"));
    let store: Store = Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap());
    let _server = serve(&behind, store).unwrap();
    let ((came, mut seen), (open, opened)) = (watch::channel(0), watch::channel(false));
    let task = tokio::spawn({
        let (front, behind) = (front.clone(), behind.clone());
        async move { gate(&front, &behind, came, opened).await }
    });
    while !front.exists() {
        tokio::task::yield_now().await;
    }
    let router = api::router(state(Arc::new(connect(&front).await.unwrap())));
    let lists: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move { get(&router, "/api/v1/sessions/team", Some("ada")).await.0 })
        })
        .collect();
    // the first is that of `connect`
    seen.wait_for(|count| *count == AT_ONCE + 1).await.unwrap();

    let request = Request::get("/api/v1/sessions/team").header("authorization", "Bearer ada");
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    let (_, problem) = get(&router, "/api/v1/sessions/team", Some("ada")).await;
    assert_eq!(problem["code"], "too-many-lists");
    assert_eq!(get(&router, "/api/v1/sessions/team", Some("eve")).await.0, 404, "first, who may");
    assert_eq!(get(&router, "/api/v1/sessions/team?limit=0", Some("ada")).await.0, 400);
    assert_eq!(*seen.borrow(), AT_ONCE + 1, "none of these was read");

    open.send_replace(true);
    for list in lists {
        assert_eq!(list.await.unwrap(), 200);
    }
    assert_eq!(get(&router, "/api/v1/sessions/team", Some("ada")).await.0, 200, "there are places again");
    task.abort();
}

#[tokio::test]
async fn a_page_is_followed_in_its_own_list_only() {
    let (router, _folder) = reader().await;
    let (_, page) = get(&router, "/api/v1/sessions/team?limit=1", Some("ada")).await;
    let token = page["continue"].as_str().unwrap();
    let invalid = json!("invalid-request");
    for other in ["agents/team?", "sessions/team?labelSelector=tier%3Dx&"] {
        let (status, body) = get(&router, &format!("/api/v1/{other}continue={token}"), Some("ada")).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &invalid), "{other}");
    }
    for bad in ["", "AAAA", &token[2..], &"A".repeat(4096)] {
        let path = format!("/api/v1/sessions/team?continue={bad}");
        let (status, body) = get(&router, &path, Some("ada")).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &invalid), "{bad}");
    }
}
