//! JSON merge patches (RFC 7386): the smallest one that leads from one value to another.

use serde_json::{Map, Value};

/// The merge patch that turns `old` into `new`; `None` when they are equal.
///
/// Keys of `old` that are missing in `new` become `null`, which takes them away.
#[must_use]
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key).unwrap_or(&Value::Null);
        if let Some(change) = merge_patch(before, value) {
            patch.insert(key.clone(), change);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_patch_is_as_small_as_the_change() {
        let old = json!({"a": 1, "b": {"c": 2, "d": [1]}, "e": 5});
        let new = json!({"a": 1, "b": {"c": 3, "d": [1]}, "f": 6});
        assert_eq!(merge_patch(&old, &new), Some(json!({"b": {"c": 3}, "f": 6, "e": null})));
        assert_eq!(merge_patch(&old, &old), None);
    }
}
