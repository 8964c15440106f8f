use super::*;
use crate::names::{Namespace, ObjectName};

fn run(name: &str, uid: &str) -> RunKey {
    RunKey { namespace: "default".parse().unwrap(), name: name.parse().unwrap(), uid: uid.parse().unwrap() }
}

async fn may(tokens: &EmbeddedAccess, who: &Identity, verb: &str, resource: &str, at: (&str, &str)) -> bool {
    let (namespace, name): (Namespace, ObjectName) = (at.0.parse().unwrap(), at.1.parse().unwrap());
    let request = Request { verb, resource, namespace: Some(&namespace), name: Some(&name) };
    tokens.authorize(who, &request).await.unwrap()
}

#[tokio::test]
async fn scopes_and_expiry() {
    let state = tempfile::tempdir().unwrap();
    let now = Arc::new(Mutex::new(Timestamp::UNIX_EPOCH));
    let clock = Arc::clone(&now);
    let tokens =
        EmbeddedAccess::open_with_clock(state.path(), Arc::new(move || *clock.lock().unwrap())).unwrap();
    let hour = Timestamp::from_second(3_600).unwrap();
    let read = tokens.mint("reader", Scope::Read, Some(hour)).unwrap();
    let admin = tokens.mint("boss", Scope::Admin, None).unwrap();
    assert!(matches!(tokens.mint("boss", Scope::Read, None), Err(Error::NameTaken(_))));

    let reader = tokens.authenticate(&read, Audience::Ostler).await.unwrap();
    let boss = tokens.authenticate(&admin, Audience::Ostler).await.unwrap();
    assert_eq!(reader, Identity::User(User::named("reader")));
    assert!(matches!(tokens.authenticate(&read, Audience::Result).await, Err(AccessError::Unauthenticated)));
    let wrong = SecretString::from(format!("{}x", read.expose_secret()));
    assert!(matches!(tokens.authenticate(&wrong, Audience::Ostler).await, Err(AccessError::Unauthenticated)));
    for verb in ["get", "list", "watch"] {
        assert!(may(&tokens, &reader, verb, "sessions", ("default", "a")).await);
    }
    for verb in ["create", "update", "patch", "delete", "GET", ""] {
        assert!(!may(&tokens, &reader, verb, "sessions", ("default", "a")).await);
        assert!(may(&tokens, &boss, verb, "sessions", ("default", "a")).await);
    }
    *now.lock().unwrap() = hour;
    assert!(tokens.authenticate(&read, Audience::Ostler).await.is_err(), "expired");
    assert!(!may(&tokens, &reader, "get", "sessions", ("default", "a")).await);
    tokens.revoke("boss").unwrap();
    assert!(tokens.authenticate(&admin, Audience::Ostler).await.is_err(), "revoked");
    assert!(!may(&tokens, &boss, "get", "sessions", ("default", "a")).await);
}

#[tokio::test]
async fn a_run_may_deliver_its_own_result_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let first = EmbeddedAccess::open(state.path()).unwrap();
    let token = first.mint_run_token(&run("a", "u-1")).unwrap();
    first.mint_run_token(&run("b", "u-2")).unwrap();
    drop(first);

    let tokens = EmbeddedAccess::open(state.path()).unwrap();
    let who = tokens.authenticate(&token, Audience::Result).await.expect("a restart knows the token");
    assert!(tokens.authenticate(&token, Audience::Ostler).await.is_err());
    assert!(may(&tokens, &who, "update", "harnessruns/result", ("default", "a")).await);
    assert!(!may(&tokens, &who, "update", "harnessruns/result", ("default", "b")).await);
    assert!(!may(&tokens, &who, "update", "harnessruns/result", ("other", "a")).await);
    assert!(!may(&tokens, &who, "update", "harnessruns", ("default", "a")).await);
    assert!(!may(&tokens, &who, "get", "harnessruns/result", ("default", "a")).await);
    let all = Request { verb: "update", resource: "harnessruns/result", namespace: None, name: None };
    assert!(!tokens.authorize(&who, &all).await.unwrap());
    tokens.drop_run(&"u-1".parse().unwrap()).unwrap();
    assert!(tokens.authenticate(&token, Audience::Result).await.is_err());
    assert!(!may(&tokens, &who, "update", "harnessruns/result", ("default", "a")).await);
}

#[tokio::test]
async fn tokens_of_a_run_are_bounded_and_the_newest_stay() {
    let state = tempfile::tempdir().unwrap();
    let tokens = EmbeddedAccess::open(state.path()).unwrap();
    let minted: Vec<_> = (0..6).map(|_| tokens.mint_run_token(&run("a", "u-1")).unwrap()).collect();
    let mut good = Vec::new();
    for token in &minted {
        good.push(tokens.authenticate(token, Audience::Result).await.is_ok());
    }
    assert_eq!(good, [false, false, true, true, true, true]);
}

#[test]
fn the_file_holds_no_token_and_must_be_private() {
    let state = tempfile::tempdir().unwrap();
    let tokens = EmbeddedAccess::open(state.path()).unwrap();
    let token = tokens.mint("reader", Scope::Read, None).unwrap();
    assert!(token.expose_secret().starts_with(PREFIX) && token.expose_secret().len() == PREFIX.len() + 43);
    let path = state.path().join("tokens");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&token.expose_secret()[PREFIX.len()..]), "only hashes are kept");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(EmbeddedAccess::open(state.path()), Err(Error::Exposed { mode: 0o640, .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "{").unwrap();
    assert!(matches!(EmbeddedAccess::open(state.path()), Err(Error::Malformed { .. })));
}
