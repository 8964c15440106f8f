//! Sets of fields, in the notation of `metadata.managedFields` (`FieldsV1`).
//!
//! A path is a list of steps: `f:name` into a map, `v:"item"` an item of a set, `k:{"uid":"…"}` an item of a list with a
//! key. Maps are granular and lists atomic, but for the two lists of the metadata that Kubernetes treats otherwise:
//! `finalizers` is a set and `ownerReferences` is keyed by UID.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// One step of a path.
pub(super) type Step = String;
/// A path from the root of an object.
pub(super) type Path = Vec<Step>;

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(BTreeSet<Path>);

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter()
    }

    /// True when the field, or one inside it, is in the set.
    pub(super) fn reaches(&self, path: &[Step]) -> bool {
        self.0.range(path.to_vec()..).next().is_some_and(|found| found.starts_with(path))
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        self.0.retain(|path| !other.0.contains(path));
    }

    pub(super) fn keep_only(&mut self, keep: impl Fn(&Path) -> bool) {
        self.0.retain(keep);
    }

    /// The set as `fieldsV1`.
    pub(super) fn to_json(&self) -> Value {
        let paths: Vec<&[Step]> = self.0.iter().map(Vec::as_slice).collect();
        render(&paths)
    }

    /// Reads `fieldsV1`. What is not an object is an empty set.
    pub(super) fn from_json(value: &Value) -> Self {
        let mut fields = Self::default();
        if let Value::Object(map) = value {
            collect(map, &mut Vec::new(), &mut fields.0);
        }
        fields
    }
}

impl FromIterator<Path> for Fields {
    fn from_iter<I: IntoIterator<Item = Path>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}

/// `paths` are sorted, so that those with the same first step are neighbours and a container comes before its content.
fn render(paths: &[&[Step]]) -> Value {
    let mut map = Map::new();
    for group in paths.chunk_by(|a, b| a[0] == b[0]) {
        let member = group[0].len() == 1;
        let inner: Vec<&[Step]> =
            group.iter().map(|path| &path[1..]).filter(|rest| !rest.is_empty()).collect();
        let mut value = render(&inner);
        if member
            && let Value::Object(content) = &mut value
            && !content.is_empty()
        {
            content.shift_insert(0, ".".to_owned(), json!({}));
        }
        map.insert(group[0][0].clone(), value);
    }
    Value::Object(map)
}

fn collect(map: &Map<String, Value>, path: &mut Path, into: &mut BTreeSet<Path>) {
    for (step, value) in map {
        if step == "." {
            into.insert(path.clone());
            continue;
        }
        path.push(step.clone());
        match value {
            Value::Object(inner) if !inner.is_empty() => collect(inner, path, into),
            _ => {
                into.insert(path.clone());
            }
        }
        path.pop();
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Node<'a> {
    /// A map, or a list that is not atomic, with content of its own.
    Container,
    /// An item of a list with keys: a container that even an apply owns.
    Item,
    /// A container without content.
    Empty,
    /// A value or an atomic list.
    Leaf(&'a Value),
}

impl Node<'_> {
    /// True when nothing at this very path differs; what is inside a container has paths of its own.
    fn stands_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Leaf(a), Self::Leaf(b)) => a == b,
            (a, b) => !matches!(a, Self::Leaf(_)) && !matches!(b, Self::Leaf(_)),
        }
    }
}

/// Every field of an object's content, with what stands there.
pub(super) fn index(content: &Value) -> BTreeMap<Path, Node<'_>> {
    let mut index = BTreeMap::new();
    walk(content, &mut Vec::new(), &mut index);
    index
}

fn walk<'a>(value: &'a Value, path: &mut Path, into: &mut BTreeMap<Path, Node<'a>>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let is_root_or_metadata = path.is_empty() || (path.len() == 1 && path[0] == "f:metadata");
            let is_item = path.last().is_some_and(|step| step.starts_with("k:"));
            if !is_root_or_metadata {
                into.insert(path.clone(), if is_item { Node::Item } else { Node::Container });
            }
            for (key, inner) in map {
                path.push(format!("f:{key}"));
                walk(inner, path, into);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() && list_at(path) != ListType::Atomic => {
            into.insert(path.clone(), Node::Container);
            for item in items {
                path.push(item_step(list_at(path), item));
                walk(item, path, into);
                path.pop();
            }
        }
        // an empty metadata owns nothing
        Value::Object(_) if path.len() <= 1 && path.first().is_none_or(|step| step == "f:metadata") => {}
        Value::Object(_) => {
            into.insert(path.clone(), Node::Empty);
        }
        Value::Array(_) if list_at(path) != ListType::Atomic => {
            into.insert(path.clone(), Node::Empty);
        }
        leaf => {
            into.insert(path.clone(), Node::Leaf(leaf));
        }
    }
}

/// The fields that an apply of this content owns: values, empty containers and items of keyed lists.
pub(super) fn applied(content: &Value) -> Fields {
    index(content).into_iter().filter(|(_, node)| *node != Node::Container).map(|(path, _)| path).collect()
}

/// How two contents differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) set: Fields,
    /// Fields that are gone.
    pub(super) removed: Fields,
}

impl Difference {
    pub(super) fn between(old: &Value, new: &Value) -> Self {
        let (old, new) = (index(old), index(new));
        let same = |path: &Path, node: Node| old.get(path).is_some_and(|before| before.stands_like(node));
        let set = new.iter().filter(|(path, node)| !same(path, **node));
        let removed = old.keys().filter(|path| !new.contains_key(*path));
        Self { set: set.map(|(path, _)| path.clone()).collect(), removed: removed.cloned().collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListType {
    /// As a whole.
    Atomic,
    /// Item by item; each stands once.
    Set,
    /// Item by item, told apart by their `uid`.
    ByUid,
}

/// The type of the list at a path.
pub(super) fn list_at(path: &[Step]) -> ListType {
    match path {
        [metadata, list] if metadata == "f:metadata" && list == "f:finalizers" => ListType::Set,
        [metadata, list] if metadata == "f:metadata" && list == "f:ownerReferences" => ListType::ByUid,
        _ => ListType::Atomic,
    }
}

/// The step that names an item of a list that is not atomic.
pub(super) fn item_step(list: ListType, item: &Value) -> Step {
    match list {
        ListType::ByUid => format!("k:{}", json!({"uid": item["uid"]})),
        ListType::Set | ListType::Atomic => format!("v:{item}"),
    }
}

/// A path as people read it: `.spec.task.prompt`, `.metadata.finalizers[="x"]`.
pub(super) fn dotted(path: &[Step]) -> String {
    path.iter()
        .map(|step| match step.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("v", item)) => format!("[={item}]"),
            Some(("k", key)) => format!("[{key}]"),
            _ => step.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_v1_there_and_back() {
        let content = json!({
            "metadata": {"labels": {"app": "x"}, "finalizers": ["a/b"], "ownerReferences": [{"uid": "u", "name": "n"}]},
            "spec": {"args": ["a"], "deep": {"b": {"c": 1}}, "empty": {}}
        });
        let all: Fields = index(&content).into_keys().collect();
        assert_eq!(
            all.to_json(),
            json!({
                "f:metadata": {
                    "f:labels": {".": {}, "f:app": {}},
                    "f:finalizers": {".": {}, "v:\"a/b\"": {}},
                    "f:ownerReferences": {".": {}, "k:{\"uid\":\"u\"}": {".": {}, "f:uid": {}, "f:name": {}}}
                },
                "f:spec": {".": {}, "f:args": {}, "f:deep": {".": {}, "f:b": {".": {}, "f:c": {}}}, "f:empty": {}}
            })
        );
        assert_eq!(Fields::from_json(&all.to_json()), all);
        let applied = applied(&content);
        assert_eq!(
            applied.to_json()["f:spec"],
            json!({"f:args": {}, "f:deep": {"f:b": {"f:c": {}}}, "f:empty": {}})
        );
        assert_eq!(Fields::from_json(&applied.to_json()), applied);
    }

    #[test]
    fn a_set_reaches_what_is_inside() {
        let fields = applied(&json!({"spec": {"a": {"b": 1}, "ab": 1}}));
        let path = |text: &str| text.split('.').map(|name| format!("f:{name}")).collect::<Path>();
        assert!(fields.reaches(&path("spec.a")));
        assert!(fields.reaches(&path("spec.a.b")));
        assert!(!fields.reaches(&path("spec.a.c")));
    }
}
