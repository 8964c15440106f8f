//! The contract of the Secrets port. An adapter brings its [`Ground`]; nothing here knows which one it is.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use ostler::{
    class::Class,
    names::{Namespace, ObjectName},
    ports::{
        Secrets,
        secrets::{Error, SecretUse},
    },
};
use secrecy::ExposeSecret;

/// How long a change may take until it is told.
const PATIENCE: Duration = Duration::from_mins(2);

/// A Secret to be, with one key `token`.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) namespace: Namespace,
    pub(crate) name: ObjectName,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) token: String,
}

/// What the suite needs of an adapter's surroundings.
#[async_trait]
pub(crate) trait Ground: Send + Sync {
    /// The adapter.
    fn secrets(&self) -> &dyn Secrets;
    /// Two namespaces.
    fn namespaces(&self) -> [Namespace; 2];
    /// Makes a Secret, or replaces it.
    async fn put(&self, draft: &Draft);
    /// Deletes a Secret.
    async fn delete(&self, namespace: &Namespace, name: &ObjectName);
}

fn draft(ground: &dyn Ground, name: &str, annotations: &[(&str, &str)], token: &str) -> Draft {
    let [namespace, _] = ground.namespaces();
    let annotations =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Draft { namespace, name: name.parse().unwrap(), annotations, token: token.to_owned() }
}

async fn resolve(
    ground: &dyn Ground,
    name: &str,
    purpose: SecretUse,
    host: Option<&str>,
) -> Result<String, Error> {
    let [namespace, _] = ground.namespaces();
    let data = ground.secrets().resolve(&namespace, &name.parse().unwrap(), purpose, host).await?;
    assert_eq!(data.len(), 1, "it has one key");
    Ok(String::from_utf8(data["token"].expose_secret().clone()).unwrap())
}

/// Waits until the change of a Secret is told.
async fn told(changes: &mut BoxStream<'static, (Namespace, ObjectName)>, ground: &dyn Ground, name: &str) {
    let [namespace, _] = ground.namespaces();
    let wanted = async {
        while let Some(change) = changes.next().await {
            if (&change.0, change.1.as_str()) == (&namespace, name) {
                return;
            }
        }
        panic!("the changes ended");
    };
    tokio::time::timeout(PATIENCE, wanted).await.expect("the change is told");
}

/// A Secret is given out for the uses and hosts that its annotations name, and for no other.
pub(crate) async fn given_for_its_uses_and_hosts(ground: &dyn Ground) {
    let both =
        [("ostler.dev/use", "git, route"), ("ostler.dev/hosts", "git.example.com, b.example.com:8443")];
    ground.put(&draft(ground, "remote", &both, "one")).await;
    ground.put(&draft(ground, "value", &[("ostler.dev/use", "env")], "two\u{e9}\n")).await;
    let good = resolve(ground, "remote", SecretUse::Git, Some("git.example.com")).await;
    assert_eq!(good.unwrap(), "one");
    let good = resolve(ground, "remote", SecretUse::Route, Some("B.example.com:8443")).await;
    assert_eq!(good.unwrap(), "one");
    assert_eq!(resolve(ground, "value", SecretUse::Env, None).await.unwrap(), "two\u{e9}\n", "to the byte");
    for (name, purpose, host) in [
        ("remote", SecretUse::Git, Some("evil.example.com")),
        ("remote", SecretUse::Git, Some("b.example.com")),
        ("remote", SecretUse::Git, None),
        ("remote", SecretUse::Forge, Some("git.example.com")),
        ("remote", SecretUse::Env, None),
        ("value", SecretUse::Sign, None),
        ("value", SecretUse::Git, Some("git.example.com")),
    ] {
        let error = resolve(ground, name, purpose, host).await.unwrap_err();
        assert!(matches!(error, Error::NotAllowed { .. }), "{name} {purpose} {host:?}: {error:?}");
        assert_eq!(error.class(), Class::Invalid);
        assert!(!format!("{error} {error:?}").contains("two"), "{error:?}");
    }
}

/// A Secret that says nothing about its use is given to nobody.
pub(crate) async fn without_annotations_for_nobody(ground: &dyn Ground) {
    ground.put(&draft(ground, "plain", &[], "one")).await;
    ground.put(&draft(ground, "hosted", &[("ostler.dev/hosts", "git.example.com")], "one")).await;
    for name in ["plain", "hosted"] {
        for (purpose, host) in [(SecretUse::Env, None), (SecretUse::Git, Some("git.example.com"))] {
            let error = resolve(ground, name, purpose, host).await.unwrap_err();
            assert!(matches!(error, Error::NotAllowed { .. }), "{name} {purpose}: {error:?}");
        }
    }
}

/// What is not there is not found, nor is what is in another namespace.
pub(crate) async fn found_in_its_namespace_only(ground: &dyn Ground) {
    let [_, other] = ground.namespaces();
    let elsewhere = draft(ground, "elsewhere", &[("ostler.dev/use", "env")], "one");
    ground.put(&Draft { namespace: other.clone(), ..elsewhere.clone() }).await;
    for name in ["elsewhere", "nowhere"] {
        let error = resolve(ground, name, SecretUse::Env, None).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{name}: {error:?}");
        assert_eq!(error.class(), Class::Invalid);
    }
    assert!(ground.secrets().resolve(&other, &elsewhere.name, SecretUse::Env, None).await.is_ok());
}

/// Who missed a Secret hears when it comes, changes, may be used at last, and goes; and what is read is never old.
pub(crate) async fn changes_are_told(ground: &dyn Ground) {
    let mut changes = ground.secrets().changes();
    let value = || resolve(ground, "late", SecretUse::Env, None);
    assert!(matches!(value().await, Err(Error::NotFound { .. })));

    ground.put(&draft(ground, "late", &[], "one")).await;
    told(&mut changes, ground, "late").await;
    assert!(matches!(value().await, Err(Error::NotAllowed { .. })));

    ground.put(&draft(ground, "late", &[("ostler.dev/use", "env")], "one")).await;
    told(&mut changes, ground, "late").await;
    assert_eq!(value().await.unwrap(), "one");

    ground.put(&draft(ground, "late", &[("ostler.dev/use", "env")], "two")).await;
    told(&mut changes, ground, "late").await;
    assert_eq!(value().await.unwrap(), "two");

    let late = draft(ground, "late", &[], "");
    ground.delete(&late.namespace, &late.name).await;
    told(&mut changes, ground, "late").await;
    assert!(matches!(value().await, Err(Error::NotFound { .. })));
}

/// Every listener hears of a change.
pub(crate) async fn all_listeners_are_told(ground: &dyn Ground) {
    ground.put(&draft(ground, "shared", &[("ostler.dev/use", "env")], "one")).await;
    resolve(ground, "shared", SecretUse::Env, None).await.unwrap();
    let (mut first, mut second) = (ground.secrets().changes(), ground.secrets().changes());
    ground.put(&draft(ground, "shared", &[("ostler.dev/use", "env")], "two")).await;
    told(&mut first, ground, "shared").await;
    told(&mut second, ground, "shared").await;
}

macro_rules! suite {
    ($ground:expr) => {
        suite!($ground; given_for_its_uses_and_hosts, without_annotations_for_nobody, found_in_its_namespace_only,
            changes_are_told, all_listeners_are_told);
    };
    ($ground:expr; $($name:ident),*) => { $(
        #[tokio::test]
        async fn $name() {
            super::$name(&$ground.await).await;
        }
    )* };
}

mod embedded {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use ostler::embedded::secrets::SecretFolder;
    use serde_json::json;

    use super::*;

    struct Folder {
        secrets: SecretFolder,
        dir: tempfile::TempDir,
    }

    impl Folder {
        fn file(&self, namespace: &Namespace, name: &ObjectName) -> PathBuf {
            self.dir.path().join(format!("{namespace}-{name}.yaml"))
        }
    }

    #[async_trait]
    impl Ground for Folder {
        fn secrets(&self) -> &dyn Secrets {
            &self.secrets
        }

        fn namespaces(&self) -> [Namespace; 2] {
            ["team".parse().unwrap(), "other".parse().unwrap()]
        }

        async fn put(&self, draft: &Draft) {
            let manifest = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": draft.namespace, "name": draft.name, "annotations": draft.annotations},
                "stringData": {"token": draft.token},
            });
            let path = self.file(&draft.namespace, &draft.name);
            let new = path.with_extension("new");
            fs::write(&new, manifest.to_string()).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(new, path).unwrap();
        }

        async fn delete(&self, namespace: &Namespace, name: &ObjectName) {
            fs::remove_file(self.file(namespace, name)).unwrap();
        }
    }

    fn ground() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        Folder { secrets: SecretFolder::open(dir.path()).unwrap(), dir }
    }

    suite!(std::future::ready(ground()));
}

mod kubernetes;
