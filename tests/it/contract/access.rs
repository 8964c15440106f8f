//! The contract of the Access port. An adapter brings its [`Ground`]; nothing here knows which one it is.

use async_trait::async_trait;
use ostler::{
    names::{Namespace, ObjectName},
    ports::{
        Access,
        access::{Audience, Error, Identity, Request},
    },
};
use secrecy::{ExposeSecret, SecretString};

/// Who holds a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// May look, and nothing else.
    Reader,
    /// May do everything.
    Admin,
}

/// What the suite needs of an adapter's surroundings.
#[async_trait]
pub(crate) trait Ground: Send + Sync {
    /// The adapter.
    fn access(&self) -> &dyn Access;
    /// Where the holders may do what they may.
    fn namespace(&self) -> Namespace;
    /// A good token of a holder, for people and tools. What it may do has come into force.
    async fn token(&self, holder: Holder) -> SecretString;
    /// Takes from a holder what it has: its token, and what it may do.
    async fn revoke(&self, holder: Holder);
}

async fn who(ground: &dyn Ground, holder: Holder) -> Identity {
    let token = ground.token(holder).await;
    ground.access().authenticate(&token, Audience::Ostler).await.unwrap()
}

async fn may(ground: &dyn Ground, who: &Identity, verb: &str, resource: &str, name: Option<&str>) -> bool {
    let (namespace, name) = (ground.namespace(), name.map(|name| name.parse::<ObjectName>().unwrap()));
    let request = Request { verb, resource, namespace: Some(&namespace), name: name.as_ref() };
    ground.access().authorize(who, &request).await.unwrap()
}

/// A token tells who holds it, the same each time, and two holders apart.
pub(crate) async fn a_token_tells_its_holder(ground: &dyn Ground) {
    let (reader, admin) = (who(ground, Holder::Reader).await, who(ground, Holder::Admin).await);
    let Identity::User(user) = &reader else { panic!("{reader:?}") };
    assert!(user.name.contains("reader"), "{user:?}");
    assert_eq!(reader.to_string(), format!("user:{}", user.name));
    assert_ne!(reader, admin);
}

/// What is no token of ours tells nothing.
pub(crate) async fn other_tokens_are_unknown(ground: &dyn Ground) {
    let good = ground.token(Holder::Reader).await;
    let good = good.expose_secret();
    let cut = good[..good.len() - 2].to_owned();
    for bad in ["", "x", "ost_", "a.b.c", &format!("{good}x"), &cut, &good.to_uppercase()] {
        for audience in [Audience::Ostler, Audience::Result] {
            let decided = ground.access().authenticate(&SecretString::from(bad), audience).await;
            assert!(matches!(decided, Err(Error::Unauthenticated)), "{bad:?}: {decided:?}");
        }
    }
}

/// A token of people and tools is no token of a run.
pub(crate) async fn a_token_is_for_one_audience(ground: &dyn Ground) {
    let token = ground.token(Holder::Admin).await;
    assert!(ground.access().authenticate(&token, Audience::Ostler).await.is_ok());
    let decided = ground.access().authenticate(&token, Audience::Result).await;
    assert!(matches!(decided, Err(Error::Unauthenticated)), "{decided:?}");
}

/// A holder may do what was given to it, and nothing else.
pub(crate) async fn verbs_are_decided(ground: &dyn Ground) {
    let (reader, admin) = (who(ground, Holder::Reader).await, who(ground, Holder::Admin).await);
    for resource in ["harnessruns", "sessions", "harnessruns/result"] {
        for name in [None, Some("a")] {
            for verb in ["get", "list", "watch"] {
                assert!(may(ground, &reader, verb, resource, name).await, "{verb} {resource} {name:?}");
                assert!(may(ground, &admin, verb, resource, name).await, "{verb} {resource} {name:?}");
            }
            for verb in ["create", "update", "patch", "delete"] {
                assert!(!may(ground, &reader, verb, resource, name).await, "{verb} {resource} {name:?}");
                assert!(may(ground, &admin, verb, resource, name).await, "{verb} {resource} {name:?}");
            }
        }
    }
    assert!(!may(ground, &reader, "", "sessions", None).await);
    assert!(!may(ground, &reader, "GET", "sessions", None).await, "verbs are exact");
}

/// Nobody is let in for a name that somebody says.
pub(crate) async fn strangers_may_nothing(ground: &dyn Ground) {
    let stranger = Identity::User(ostler::ports::access::User::named("stranger"));
    for verb in ["get", "list", "update", "delete"] {
        assert!(!may(ground, &stranger, verb, "sessions", Some("a")).await, "{verb}");
    }
    let everywhere = Request { verb: "list", resource: "sessions", namespace: None, name: None };
    assert!(!ground.access().authorize(&stranger, &everywhere).await.unwrap());
}

/// A token that was taken back is unknown, and who held it may nothing.
pub(crate) async fn what_is_revoked_is_over(ground: &dyn Ground) {
    let token = ground.token(Holder::Reader).await;
    let reader = ground.access().authenticate(&token, Audience::Ostler).await.unwrap();
    ground.revoke(Holder::Reader).await;
    let decided = ground.access().authenticate(&token, Audience::Ostler).await;
    assert!(matches!(decided, Err(Error::Unauthenticated)), "{decided:?}");
    assert!(!may(ground, &reader, "get", "sessions", Some("a")).await);
}

macro_rules! suite {
    ($ground:expr) => {
        suite!($ground; a_token_tells_its_holder, other_tokens_are_unknown, a_token_is_for_one_audience,
            verbs_are_decided, strangers_may_nothing, what_is_revoked_is_over);
    };
    ($ground:expr; $($name:ident),*) => { $(
        #[tokio::test]
        async fn $name() {
            super::$name(&$ground.await).await;
        }
    )* };
}

mod embedded {
    use ostler::embedded::access::{EmbeddedAccess, Scope};

    use super::*;

    struct Tokens {
        access: EmbeddedAccess,
        _state: tempfile::TempDir,
    }

    fn name(holder: Holder) -> &'static str {
        match holder {
            Holder::Reader => "the-reader",
            Holder::Admin => "the-admin",
        }
    }

    #[async_trait]
    impl Ground for Tokens {
        fn access(&self) -> &dyn Access {
            &self.access
        }

        fn namespace(&self) -> Namespace {
            "default".parse().unwrap()
        }

        async fn token(&self, holder: Holder) -> SecretString {
            let scope = if holder == Holder::Admin { Scope::Admin } else { Scope::Read };
            self.access.mint(name(holder), scope, None).unwrap()
        }

        async fn revoke(&self, holder: Holder) {
            self.access.revoke(name(holder)).unwrap();
        }
    }

    fn ground() -> Tokens {
        let state = tempfile::tempdir().unwrap();
        Tokens { access: EmbeddedAccess::open(state.path()).unwrap(), _state: state }
    }

    suite!(std::future::ready(ground()));
}

mod kubernetes;
