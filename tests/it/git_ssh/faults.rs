//! Servers that break off or say nothing.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ostler::{
    class::Class,
    git::{Error, Limits, Remote},
};

use super::{fetch, identity, main_branch, mirror, noise, remote, told};
use crate::servers::{
    repo::Repo,
    ssh::{Options, Ssh},
};

#[test]
fn a_connection_that_breaks_anywhere_is_worth_another_try() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let noise = noise(20_000);
    repo.push(&[("noise", &noise)], "noise");
    let (mirror, remote) = (mirror(&repo), remote(&server, &repo, identity));
    // In the greeting, the key exchange, the login, and the pack.
    for bytes in [0, 10, 500, 1_500, 3_000, 20_000, 60_000] {
        server.cut_after(Some(bytes));
        let error = fetch(&mirror, &remote).unwrap_err();
        let text = told(&error);
        assert!(matches!(error, Error::Unreachable { .. }), "{bytes}: {text} {error:?}");
        assert_eq!(error.class(), Class::Transient);
    }
    server.cut_after(None);
    assert!(fetch(&mirror, &remote).unwrap().changed);
}

#[test]
fn nobody_there_is_worth_another_try() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ssh://127.0.0.1:{free}/a");
    let remote = Remote::builder(url.parse().unwrap()).credential(identity).build().unwrap();
    let error = fetch(&mirror(&repo), &remote).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

/// Takes connections and never says a word.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ssh://127.0.0.1:{}/a", listener.local_addr().unwrap().port());
    (listener, url)
}

#[test]
fn a_server_that_never_answers_takes_no_longer_than_the_budget() {
    let server = Ssh::start(&Options::default());
    let private = server.user("user", &["-t", "ed25519"]);
    let repo = Repo::with_readme();
    let (listener, url) = silent();
    // One that says nothing at all, and one whose command does.
    let mute = Ssh::start(&Options { more: "ForceCommand sleep 600", ..Options::default() });
    let mute_private = mute.user("user", &["-t", "ed25519"]);
    for (url, credential) in [
        (url, identity(&private, &server.known_hosts())),
        (mute.url(&repo.bare()), identity(&mute_private, &mute.known_hosts())),
    ] {
        let remote = Remote::builder(url.parse().unwrap()).credential(credential);
        let remote = remote.timeout(Duration::from_secs(3)).build().unwrap();
        let error = fetch(&mirror(&repo), &remote).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Transient);
    }
    drop(listener);
}

#[test]
fn an_interrupt_ends_the_wait() {
    let server = Ssh::start(&Options::default());
    let identity = identity(&server.user("user", &["-t", "ed25519"]), &server.known_hosts());
    let repo = Repo::with_readme();
    let (listener, url) = silent();
    let remote = Remote::builder(url.parse().unwrap()).credential(identity);
    let remote = remote.timeout(Duration::from_hours(1)).build().unwrap();
    let (stop, mirror) = (AtomicBool::new(false), mirror(&repo));
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| mirror.fetch(&remote, &main_branch(), &Limits::default(), &stop));
        // It is connected: the wait has begun.
        let connected = listener.accept().unwrap();
        stop.store(true, Ordering::Relaxed);
        let error = fetching.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error:?}");
        drop(connected);
    });
}
