//! Which repository records a run.

use kube::ResourceExt;

use crate::{
    kinds::{ConfigRepository, HarnessRun, Session, meta},
    names::Uid,
};

/// Where the results of a run go.
#[derive(Debug, Clone)]
pub enum Record<'a> {
    /// To the ledger of this repository.
    In(&'a ConfigRepository),
    /// To a repository that does not exist (any more).
    Gone(String),
    /// Nowhere: no repository is named, and the namespace has none or several.
    Nowhere,
}

/// Finds the repository: the session's `recordRef`, else the one that the run came from, else the one that its session
/// came from, else the namespace's only one.
#[must_use]
pub fn record_of<'a>(
    run: &HarnessRun,
    session: Option<&Session>,
    repositories: &'a [&'a ConfigRepository],
) -> Record<'a> {
    let namespace = run.namespace();
    if let Some(reference) = session.and_then(|s| s.spec.record_ref.as_ref()) {
        let named =
            repositories.iter().find(|r| r.namespace() == namespace && r.name_any() == reference.name);
        return named.map_or_else(|| Record::Gone(reference.name.clone()), |found| Record::In(found));
    }
    let source = source_uid(run.annotations()).or_else(|| session.and_then(|s| source_uid(s.annotations())));
    if let Some(uid) = source {
        let named = repositories.iter().find(|r| r.uid().as_deref() == Some(uid.as_str()));
        return named.map_or_else(|| Record::Gone(uid.to_string()), |found| Record::In(found));
    }
    let mut own = repositories.iter().filter(|r| r.namespace() == namespace);
    match (own.next(), own.next()) {
        (Some(only), None) => Record::In(only),
        _ => Record::Nowhere,
    }
}

fn source_uid(annotations: &std::collections::BTreeMap<String, String>) -> Option<Uid> {
    annotations.get(meta::SOURCE_UID)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn repository(namespace: &str, name: &str) -> ConfigRepository {
        let uid = format!("uid-{name}");
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
            "metadata": {"namespace": namespace, "name": name, "uid": uid}, "spec": {"url": "/r"}
        }))
        .unwrap()
    }

    fn run(source: Option<&str>) -> HarnessRun {
        let annotations = source.map(|uid| json!({ meta::SOURCE_UID: uid })).unwrap_or_default();
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "team", "name": "r", "annotations": annotations}, "spec": {}
        }))
        .unwrap()
    }

    #[test]
    fn the_nearest_word_counts() {
        let (a, b, far) = (repository("team", "a"), repository("team", "b"), repository("far", "c"));
        let session = |reference: &str| {
            let mut session = Session::new("s", crate::kinds::session::SessionSpec::default());
            session.spec.record_ref = Some(crate::kinds::shared::NameRef { name: reference.into() });
            session
        };
        let name = |record: Record<'_>| match record {
            Record::In(repository) => format!("in {}", repository.name_any()),
            Record::Gone(name) => format!("gone {name}"),
            Record::Nowhere => "nowhere".to_owned(),
        };
        let cases: [(_, _, &[&ConfigRepository], _); 6] = [
            (run(None), None, &[&a, &b], "nowhere"),
            (run(None), None, &[&a, &far], "in a"),
            (run(Some("uid-c")), None, &[&a, &far], "in c"),
            (run(Some("uid-x")), None, &[&a], "gone uid-x"),
            (run(Some("uid-a")), Some(session("b")), &[&a, &b], "in b"),
            (run(None), Some(session("z")), &[&a], "gone z"),
        ];
        for (run, session, repositories, expected) in cases {
            assert_eq!(name(record_of(&run, session.as_ref(), repositories)), expected);
        }
    }
}
