use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};

use super::*;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // as editors do: the file appears at once and with its mode
        let draft = path.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(draft, path).unwrap();
    }

    fn open(&self) -> SecretFolder {
        SecretFolder::open(self.dir.path()).unwrap()
    }
}

fn manifest(name: &str, used: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  annotations:\n    ostler.dev/use: {used}\n    \
         ostler.dev/hosts: git.example.com\nstringData:\n  token: {value}\n"
    )
}

async fn token(secrets: &SecretFolder, namespace: &str, name: &str, host: &str) -> Result<String, Error> {
    let (namespace, name) = (namespace.parse().unwrap(), name.parse().unwrap());
    let data = secrets.resolve(&namespace, &name, SecretUse::Git, Some(host)).await?;
    Ok(String::from_utf8(data["token"].expose_secret().clone()).unwrap())
}

#[tokio::test]
async fn secrets_are_found_anywhere_below_and_given_for_their_use_only() {
    let bench = Bench::new();
    let second = manifest("b", "git", "two").replace("name: b", "name: b\n  namespace: team");
    bench.write("deep/er/a.yaml", &format!("{}---\n{second}---\nkind: Other\n", manifest("a", "git", "one")));
    bench.write("c.yml", &manifest("c", "env", "three"));
    let based = manifest("d", "git", "x").replace("stringData:\n  token: x", "data:\n  token: Zm91cg==");
    bench.write("d.yaml", &based);
    let secrets = bench.open();
    assert_eq!(token(&secrets, "default", "a", "git.example.com").await.unwrap(), "one");
    assert_eq!(token(&secrets, "team", "b", "git.example.com").await.unwrap(), "two");
    assert_eq!(token(&secrets, "default", "d", "git.example.com").await.unwrap(), "four");
    let error = token(&secrets, "default", "a", "evil.example.com").await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
    let error = token(&secrets, "default", "c", "git.example.com").await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
    let error = token(&secrets, "default", "b", "git.example.com").await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "another namespace: {error:?}");
}

#[tokio::test]
async fn what_others_can_read_is_refused_and_links_do_not_lead_out() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = outside.path().join("z.yaml");
    fs::write(&elsewhere, manifest("z", "git", "leak")).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&elsewhere, bench.dir.path().join("z.yaml")).unwrap();
    bench.write("a.yaml", &manifest("a", "git", "one"));
    symlink(bench.dir.path(), bench.dir.path().join("circle")).unwrap();
    let secrets = bench.open();
    assert_eq!(token(&secrets, "default", "a", "git.example.com").await.unwrap(), "one");
    let error = token(&secrets, "default", "z", "git.example.com").await.unwrap_err();
    assert!(error.to_string().contains("leads out of the folder"), "{error}");
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(bench.dir.path().join("a.yaml"), fs::Permissions::from_mode(mode)).unwrap();
        let error = token(&secrets, "default", "a", "git.example.com").await.unwrap_err();
        assert!(matches!(&error, Error::Unusable { why, .. } if why.contains("chmod 600")), "{error:?}");
    }
}

#[tokio::test]
async fn errors_hold_no_values() {
    let bench = Bench::new();
    bench.write(
        "a.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {token: [hunter2-canary]}\n",
    );
    bench.write(
        "b.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\ndata: {token: hunter2-canary}\n",
    );
    bench.write("c1.yaml", &manifest("c", "git", "hunter2-canary"));
    bench.write("c2.yaml", &manifest("c", "git", "hunter2-canary"));
    let secrets = bench.open();
    for name in ["a", "b", "c"] {
        let error = token(&secrets, "default", name, "git.example.com").await.unwrap_err();
        assert!(matches!(error, Error::Unusable { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn a_change_is_told_by_name_and_counts_at_once() {
    let bench = Bench::new();
    bench.write("a.yaml", &manifest("a", "git", "one"));
    bench.write("b.yaml", &manifest("b", "git", "one"));
    let secrets = bench.open();
    let mut changes = secrets.changes();
    bench.write("a.yaml", &manifest("a", "git", "two"));
    let next = tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
    assert_eq!(next.1.as_str(), "a");
    assert_eq!(token(&secrets, "default", "a", "git.example.com").await.unwrap(), "two");
    fs::remove_file(bench.dir.path().join("b.yaml")).unwrap();
    let next = tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
    assert_eq!(next.1.as_str(), "b");
}
