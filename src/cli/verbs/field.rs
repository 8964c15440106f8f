//! Who sets a field of a spec: Git, or somebody at the live object.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Error, reference};
use crate::{
    kinds::{Object, ObjectId, meta},
    ports::{Objects, objects::At},
};

/// True when Git says what the field is: what is patched would be put back.
pub(super) fn set_by_git(object: &Object, field: &str) -> bool {
    let owns = |fields: &Value| fields.pointer(&format!("/f:spec/f:{field}")).is_some();
    let owners: Vec<_> = object
        .managed_fields()
        .iter()
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)))
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    if owners.is_empty() {
        // nobody is known to own it: then it came with the object
        return object.annotations().contains_key(meta::SOURCE) && spec(object, field).is_some();
    }
    owners.contains(&meta::SYNCER)
}

/// A field of the spec.
pub(super) fn spec<'a>(object: &'a Object, field: &str) -> Option<&'a Value> {
    object.data.pointer(&format!("/spec/{field}"))
}

/// Sets a field of the live object, unless Git sets it; `advice` says what to do then.
pub(super) async fn patch(
    objects: &dyn Objects,
    id: &ObjectId,
    object: &Object,
    (field, value): (&str, Value),
    advice: &str,
) -> Result<(), Error> {
    if set_by_git(object, field) {
        let file =
            object.annotations().get(meta::SOURCE_PATH).map(|path| format!(" ({path})")).unwrap_or_default();
        return Err(Error::Refused(format!(
            "Git sets spec.{field} of {id}{file}, and what is changed here would be put back: {advice}"
        )));
    }
    let at = At::of(object).ok_or_else(|| Error::NotFound(id.clone()))?.any_version();
    objects.merge(id, &at, &json!({"spec": {field: value}}), meta::CLI).await?;
    Ok(())
}

/// Where the object's file is in the repository it came from.
pub(super) fn source_path(object: &Object, id: &ObjectId) -> Result<String, Error> {
    let path = object.annotations().get(meta::SOURCE_PATH).cloned();
    path.ok_or_else(|| {
        let short = reference::short(id);
        Error::Refused(format!("{short} did not come out of a repository, so no commit can change it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(annotations: &Value, managed: &Value) -> Object {
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"name": "a", "annotations": annotations, "managedFields": managed},
            "spec": {"stop": false}
        }))
        .unwrap()
    }

    fn entry(manager: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": fields}})
    }

    #[test]
    fn git_sets_what_the_syncer_owns() {
        let (none, source) = (json!({}), json!({ meta::SOURCE: "default/config" }));
        let stop = json!({"f:stop": {}});
        let others = json!({"f:args": {}});
        let cases = [
            (&none, json!([entry(meta::SYNCER, &stop)]), true),
            (&source, json!([entry(meta::SYNCER, &others), entry(meta::CLI, &stop)]), false),
            (&source, json!([entry(meta::SYNCER, &stop), entry(meta::CLI, &stop)]), true),
            (&source, json!([entry(meta::SYNCER, &others)]), true),
            (&none, json!([]), false),
        ];
        for (annotations, managed, expected) in cases {
            assert_eq!(set_by_git(&run(annotations, &managed), "stop"), expected, "{managed}");
        }
        assert!(!set_by_git(&run(&source, &json!([])), "suspend"));
    }
}
