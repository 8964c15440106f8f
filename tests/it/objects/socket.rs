//! The store behind its socket.

use std::os::unix::fs::PermissionsExt;

use futures::StreamExt;
use kube::runtime::watcher::Event;
use ostler::ports::objects::Error;

use super::*;

#[tokio::test]
async fn the_socket_is_private_fits_anywhere_and_its_watch_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let (store, path) = (open(folder.path()), deep.join("objects.sock"));
    assert!(connect(&path).await.is_err(), "nobody serves yet");
    let (server, remote) = serve_and_connect(&store, &path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    remote.create(&agent("a", &codex("i1")), "m").await.unwrap();
    let mut watch = remote.watch(Kind::Agent, None);
    assert!(matches!(watch.next().await, Some(Ok(Event::Init))));
    assert!(matches!(watch.next().await, Some(Ok(Event::InitApply(_)))));
    assert!(matches!(watch.next().await, Some(Ok(Event::InitDone))));

    drop(server);
    assert!(watch.next().await.unwrap().is_err());
    let error = remote.list(Kind::Agent, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let (_server, _) = serve_and_connect(&store, &path).await;
    let begun = watch.filter(|event| std::future::ready(event.is_ok())).next().await;
    assert!(matches!(begun, Some(Ok(Event::Init))));
}
