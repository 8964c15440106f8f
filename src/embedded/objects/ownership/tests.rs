use super::*;

struct Bench {
    content: Value,
    owners: Owners,
}

impl Bench {
    fn new() -> Self {
        Self { content: json!({"metadata": {}}), owners: Owners::default() }
    }

    fn apply(&mut self, manager: &str, force: bool, config: &Value) -> Result<(), Vec<Clash>> {
        let mut owners = self.owners.clone();
        let writer = writer(Operation::Apply, manager);
        self.content = owners.apply(&self.content, config, &writer, force, "t1")?;
        self.owners = owners;
        Ok(())
    }

    fn update(&mut self, manager: &str, patch: &Value) {
        let new = merge_patch(&self.content, patch);
        self.owners.update(&self.content, &new, &writer(Operation::Update, manager), "t2");
        self.content = new;
    }

    fn owned_by(&self, operation: Operation, manager: &str) -> Value {
        self.owners.fields(&writer(operation, manager)).map_or(Value::Null, Fields::to_json)
    }
}

fn writer(operation: Operation, manager: &str) -> Writer {
    Writer { operation, manager: manager.to_owned(), api_version: "g/v1".to_owned(), subresource: None }
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let mut bench = Bench::new();
    bench
        .apply("m1", false, &json!({"metadata": {"labels": {"l": "1"}}, "spec": {"a": 1, "b": {"c": 2}}}))
        .unwrap();
    bench.apply("m2", false, &json!({"spec": {"a": 1}})).unwrap();
    bench.apply("m1", false, &json!({"spec": {"d": [1]}})).unwrap();
    assert_eq!(bench.content, json!({"metadata": {}, "spec": {"a": 1, "d": [1]}}));
    assert_eq!(bench.owned_by(Operation::Apply, "m2"), json!({"f:spec": {"f:a": {}}}));
    bench.apply("m1", false, &json!({})).unwrap();
    bench.apply("m2", false, &json!({})).unwrap();
    assert_eq!(bench.content, json!({"metadata": {}}));
    assert_eq!(bench.owners, Owners::default());
}

#[test]
fn an_apply_meets_owners_and_force_takes_over() {
    let mut bench = Bench::new();
    bench.apply("m1", false, &json!({"spec": {"a": 1}})).unwrap();
    bench.update("upd", &json!({"spec": {"b": 1}}));
    let clashes = bench.apply("m3", false, &json!({"spec": {"a": 2, "b": 2}})).unwrap_err();
    let told: Vec<_> = clashes.iter().map(|clash| (clash.manager.as_str(), clash.field.as_str())).collect();
    assert_eq!(told, [("\"m1\"", ".spec.a"), ("\"upd\" using g/v1", ".spec.b")]);
    bench.apply("m3", true, &json!({"spec": {"a": 2, "b": 2}})).unwrap();
    assert_eq!(bench.owned_by(Operation::Apply, "m1"), Value::Null);
    assert_eq!(bench.owned_by(Operation::Apply, "m3"), json!({"f:spec": {"f:a": {}, "f:b": {}}}));
}

#[test]
fn an_update_takes_what_it_changes_and_only_that() {
    let mut bench = Bench::new();
    bench.apply("m1", false, &json!({"spec": {"a": 1, "b": 1, "c": 1}})).unwrap();
    bench.update("upd", &json!({"spec": {"a": 2, "b": 1, "c": null}}));
    assert_eq!(bench.owned_by(Operation::Apply, "m1"), json!({"f:spec": {"f:b": {}}}));
    assert_eq!(bench.owned_by(Operation::Update, "upd"), json!({"f:spec": {"f:a": {}}}));
    let before = bench.owners.clone();
    bench.update("other", &json!({"spec": {"a": 2}}));
    assert_eq!(bench.owners, before, "the same value changes no owner");
}

#[test]
fn finalizers_are_a_set_of_several_managers() {
    let mut bench = Bench::new();
    bench.apply("m1", false, &json!({"metadata": {"finalizers": ["a/x"]}})).unwrap();
    bench.apply("m2", false, &json!({"metadata": {"finalizers": ["a/y"]}})).unwrap();
    assert_eq!(bench.content, json!({"metadata": {"finalizers": ["a/y", "a/x"]}}));
    bench.apply("m1", false, &json!({"spec": {"a": 1}})).unwrap();
    assert_eq!(bench.content["metadata"], json!({"finalizers": ["a/y"]}));
    bench.apply("m2", false, &json!({"spec": {"a": 1}})).unwrap();
    assert_eq!(bench.content["metadata"], json!({}));
}

#[test]
fn an_owner_of_an_empty_map_does_not_stand_in_the_way() {
    let mut bench = Bench::new();
    bench.apply("m1", false, &json!({"spec": {"map": {}}})).unwrap();
    bench.apply("m2", false, &json!({"spec": {"map": {"k": 1}}})).unwrap();
    bench.apply("m1", false, &json!({"spec": {"other": 1}})).unwrap();
    assert_eq!(bench.content["spec"], json!({"map": {"k": 1}, "other": 1}));
}

#[test]
fn a_patch_is_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": ["c"]}), json!({"a": ["c"]})),
        (json!({"a": [{"b": 1}]}), json!({"a": {"x": {"y": null}}}), json!({"a": {"x": {}}})),
        (json!({"a": 1}), json!({"b": {"c": {"d": null}}}), json!({"a": 1, "b": {"c": {}}})),
    ];
    for (target, patch, result) in cases {
        assert_eq!(merge_patch(&target, &patch), result, "{target} with {patch}");
    }
}
