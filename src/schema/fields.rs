//! Fields that a kind does not have.

use serde_json::{Map, Value};

use super::structural;
use crate::kinds::Kind;

/// What authors may write under `metadata`; the rest is the server's.
const AUTHORED_METADATA: [&str; 5] = ["name", "namespace", "labels", "annotations", "finalizers"];

/// A field that the kind does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// Where it stands: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// The known field that was probably meant.
    pub meant: Option<String>,
}

/// Finds all fields that `kind` does not have, in the order of the object. Metadata is held to what authors may write.
#[must_use]
pub fn unknown_fields(kind: Kind, object: &Value) -> Vec<UnknownField> {
    let mut found = Vec::new();
    if let Some(Value::Object(metadata)) = object.get("metadata") {
        for name in metadata.keys().filter(|name| !AUTHORED_METADATA.contains(&name.as_str())) {
            let meant = closest(name, AUTHORED_METADATA.into_iter());
            found.push(UnknownField { pointer: format!("/metadata/{}", escape(name)), meant });
        }
    }
    visit(structural(kind), object, "", &mut |at, name, known| {
        let meant = closest(name, known.keys().map(String::as_str));
        found.push(UnknownField { pointer: format!("{at}/{}", escape(name)), meant });
    });
    found
}

/// Removes what an API server would: fields that the kind does not have, and nulls. Returns the pointers of the unknown
/// fields. Metadata stays as it is.
pub fn prune(kind: Kind, object: &mut Value) -> Vec<String> {
    let mut pointers = Vec::new();
    visit(structural(kind), object, "", &mut |at, name, _| pointers.push(format!("{at}/{}", escape(name))));
    for pointer in &pointers {
        let Some((parent, name)) = pointer.rsplit_once('/') else { continue };
        if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
            parent.shift_remove(&unescape(name));
        }
    }
    if let Value::Object(object) = object {
        for (_, value) in object.iter_mut().filter(|(name, _)| *name != "metadata") {
            drop_nulls(value);
        }
    }
    pointers
}

/// Removes map entries that are null, at any depth: no field of ours may be null, and a server keeps none.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Escapes one segment of a JSON pointer.
pub(crate) fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

fn visit(schema: &Value, value: &Value, at: &str, f: &mut impl FnMut(&str, &str, &Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            let known = schema.get("properties").and_then(Value::as_object);
            let rest = schema.get("additionalProperties");
            for (name, child) in object {
                let below = || format!("{at}/{}", escape(name));
                match (known.and_then(|known| known.get(name)), rest, known) {
                    (Some(schema), ..) | (None, Some(schema), _) => visit(schema, child, &below(), f),
                    (None, None, Some(known)) => f(at, name, known),
                    (None, None, None) => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.get("items") else { return };
            for (index, child) in list.iter().enumerate() {
                visit(items, child, &format!("{at}/{index}"), f);
            }
        }
        _ => {}
    }
}

/// The known name at a small edit distance, if there is one.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = 1 + name.chars().count() / 4;
    let distances = known.map(|k| (distance(&name.to_lowercase(), &k.to_lowercase()), k));
    distances.filter(|(d, _)| *d <= limit).min().map(|(_, k)| k.to_owned())
}

/// Edit distance where neighbours that changed places count as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_found_with_what_was_meant() {
        let object = json!({
            "metadata": {"name": "a", "lables": {}, "uid": "1"}, "extra": 1,
            "spec": {"timout": "1h", "env": [{"name": "A", "vlaue": "b"}], "zzz/y": 1}
        });
        let found: Vec<(String, Option<String>)> =
            unknown_fields(Kind::HarnessRun, &object).into_iter().map(|f| (f.pointer, f.meant)).collect();
        let expected = [
            ("/metadata/lables", Some("labels")),
            ("/metadata/uid", None),
            ("/extra", None),
            ("/spec/timout", Some("timeout")),
            ("/spec/env/0/vlaue", Some("value")),
            ("/spec/zzz~1y", None),
        ];
        let expected = expected.map(|(at, meant)| (at.to_owned(), meant.map(str::to_owned)));
        assert_eq!(found, expected);
    }

    #[test]
    fn pruning_removes_unknown_fields_and_nulls() {
        let mut object = json!({
            "metadata": {"uid": "1", "creationTimestamp": null},
            "spec": {"stop": null, "foo": {"bar": 1}, "env": [{"name": "A", "value": "b", "x/y": 1}]}
        });
        assert_eq!(prune(Kind::HarnessRun, &mut object), ["/spec/foo", "/spec/env/0/x~1y"]);
        assert_eq!(
            object,
            json!({"metadata": {"uid": "1", "creationTimestamp": null}, "spec": {"env": [{"name": "A", "value": "b"}]}})
        );
    }

    #[test]
    fn a_map_of_authors_own_keys_is_left_alone() {
        let object = json!({"metadata": {}, "data": {"any key": "x"}});
        assert!(unknown_fields(Kind::ConfigMap, &object).is_empty());
    }
}
