//! CEL rules that span fields or hold for a field wherever it stands; the others are beside their types.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

const VALIDATIONS: &str = "x-kubernetes-validations";

/// Host names: exact, or one leading wildcard label.
const HOST: &str =
    r"^(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?$";
const CIDR: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/[0-9]{1,3})$";

/// Rules of a field of that name anywhere below a spec.
pub(super) fn of_field(name: &str, node: &mut Map<String, Value>) {
    let is = |type_: &str| node.get("type").is_some_and(|t| t == type_);
    match name {
        "url" | "baseUrl" if is("string") => add(
            node,
            "!self.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://[^/]*@') || self.startsWith('ssh://')",
            "a URL carries no credentials: name a Secret instead",
        ),
        "mountPath" | "workingDir" | "path" | "promptPath" if is("string") => add(
            node,
            "!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
            "the path must be relative and stay inside",
        ),
        "binds" if is("string") => add(
            node,
            "self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
            "the path must be absolute and free of '..'",
        ),
        "hosts" if is("string") => {
            node.insert("pattern".into(), HOST.into());
        }
        "cidrs" if is("string") => {
            node.insert("pattern".into(), CIDR.into());
        }
        "contexts" | "env" | "credentials" | "rules" if is("array") => add(
            node,
            "self.all(x, self.exists_one(y, y.name == x.name))",
            "each name may stand only once in the list",
        ),
        "deny" if is("object") => {
            add(node, "has(self.hosts) || has(self.cidrs)", "hosts or cidrs are needed");
        }
        _ => {}
    }
}

/// Rules of a whole kind.
pub(super) fn of_kind(kind: Kind, schema: &mut Value) {
    match kind {
        Kind::ConfigRepository => ledger_branch(schema),
        Kind::HarnessRun => immutable_once_claimed(schema),
        _ => {}
    }
}

/// Results pushed to the followed branch would be a sync that triggers itself.
fn ledger_branch(schema: &mut Value) {
    let Some(Value::Object(spec)) = schema.pointer_mut("/properties/spec") else { return };
    add(
        spec,
        "(has(self.writeBack) && has(self.writeBack.url) && self.writeBack.url != self.url) \
         || !has(self.ref) || !has(self.ref.branch) \
         || self.ref.branch != (has(self.writeBack) && has(self.writeBack.branch) ? self.writeBack.branch : 'ostler/results')",
        "the ledger needs a branch of its own: writeBack.branch must differ from ref.branch in the same repository",
    );
}

/// The claim in the ledger names a digest of the spec; after it only `stop` and the TTL may change.
fn immutable_once_claimed(schema: &mut Value) {
    let fields: Vec<String> = match schema.pointer("/properties/spec/properties") {
        Some(Value::Object(properties)) => properties.keys().cloned().collect(),
        _ => return,
    };
    let Some(root) = schema.as_object_mut() else { return };
    for field in fields.iter().filter(|field| !matches!(field.as_str(), "stop" | "ttlSecondsAfterFinished")) {
        let rule = format!(
            "!has(oldSelf.status) || !has(oldSelf.status.claim) || (has(self.spec.{field}) == has(oldSelf.spec.{field}) \
             && (!has(self.spec.{field}) || self.spec.{field} == oldSelf.spec.{field}))"
        );
        add(
            root,
            &rule,
            &format!("spec.{field} cannot change once the run is claimed: write a run with a new name"),
        );
    }
}

fn add(node: &mut Map<String, Value>, rule: &str, message: &str) {
    let rules = node.entry(VALIDATIONS).or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(json!({"rule": rule, "message": message}));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        kinds::{API_VERSION, Kind},
        schema::{check, structural},
    };

    fn object(kind: Kind, spec: &serde_json::Value) -> serde_json::Value {
        json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    }

    /// The pointers of all violations.
    fn broken(kind: Kind, spec: &serde_json::Value) -> Vec<String> {
        let violations = check(kind, &object(kind, spec), None).err().unwrap_or_default();
        violations.into_iter().map(|v| v.pointer).collect()
    }

    #[test]
    fn every_rule_compiles() {
        fn walk(schema: &kube::core::cel::CompiledSchema, rules: &mut usize) {
            assert!(!schema.has_errors(), "{:?}", schema.compilation_errors());
            *rules += schema.validations.len();
            schema.properties.values().for_each(|child| walk(child, rules));
            if let Some(items) = &schema.items {
                walk(items, rules);
            }
        }
        let mut rules = 0;
        for kind in Kind::ALL {
            walk(&kube::core::cel::compile_schema(structural(kind)), &mut rules);
        }
        assert!(rules > 40, "{rules} rules");
    }

    #[test]
    fn the_ledger_has_its_own_branch() {
        let spec = |follow: &str, write_back| json!({"url": "/a", "ref": {"branch": follow}, "writeBack": write_back});
        let good = [
            spec("main", json!({})),
            spec("main", json!({"branch": "x"})),
            spec("main", json!({"url": "/b", "branch": "main"})),
        ];
        for spec in good {
            assert!(broken(Kind::ConfigRepository, &spec).is_empty(), "{spec}");
        }
        let bad = [
            spec("ostler/results", json!({})),
            spec("main", json!({"branch": "main"})),
            spec("main", json!({"url": "/a", "branch": "main"})),
        ];
        for spec in bad {
            assert_eq!(broken(Kind::ConfigRepository, &spec), ["/spec"], "{spec}");
        }
    }

    #[test]
    fn fields_are_checked_wherever_they_stand() {
        let context = |extra: &serde_json::Value| {
            let mut context = json!({"name": "a", "text": "t"});
            context.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            context
        };
        let cases = [
            (Kind::Session, json!({"repository": {"url": "https://u:p@h/r"}}), "/spec/repository/url"),
            (
                Kind::Session,
                json!({"contexts": [context(&json!({"mountPath": "../x"}))]}),
                "/spec/contexts/0/mountPath",
            ),
            (
                Kind::Session,
                json!({"contexts": [context(&json!({})), context(&json!({}))]}),
                "/spec/contexts",
            ),
            (Kind::HarnessRun, json!({"workingDir": "/etc"}), "/spec/workingDir"),
            (
                Kind::HarnessRun,
                json!({"result": {"artifacts": [{"path": "a/../../b"}]}}),
                "/spec/result/artifacts/0/path",
            ),
            (Kind::Agent, json!({"preset": "pi", "local": {"binds": ["opt"]}}), "/spec/local/binds/0"),
            (Kind::EgressPolicy, json!({"rules": [{"name": "a", "hosts": ["*"]}]}), "/spec/rules/0/hosts/0"),
            (
                Kind::EgressPolicy,
                json!({"rules": [{"name": "a", "hosts": ["a.*.b"]}]}),
                "/spec/rules/0/hosts/0",
            ),
            (
                Kind::EgressPolicy,
                json!({"rules": [{"name": "a", "cidrs": ["10.0.0.0"]}]}),
                "/spec/rules/0/cidrs/0",
            ),
            (Kind::EgressPolicy, json!({"deny": [{}]}), "/spec/deny/0"),
        ];
        for (kind, spec, at) in cases {
            assert_eq!(broken(kind, &spec), [at], "{spec}");
        }
        let good = json!({"rules": [{"name": "a", "hosts": ["*.example.com", "h_1"], "cidrs": ["10.0.0.0/8", "fd00::/8"]}]});
        assert!(broken(Kind::EgressPolicy, &good).is_empty());
        assert!(broken(Kind::HarnessRun, &json!({"workingDir": "a..b/.c"})).is_empty());
    }

    #[test]
    fn a_claimed_run_is_immutable_but_for_stop_and_ttl() {
        let mut old = object(Kind::HarnessRun, &json!({"task": {"prompt": "a"}}));
        let mut new = object(Kind::HarnessRun, &json!({"task": {"prompt": "b"}}));
        assert!(check(Kind::HarnessRun, &new, Some(&old)).is_ok(), "nobody has claimed it");
        old["status"] = json!({"claim": {"holder": "h"}});
        new["status"] = old["status"].clone();
        let violations = check(Kind::HarnessRun, &new, Some(&old)).unwrap_err();
        assert!(violations[0].message.contains("spec.task"), "{violations:?}");
        let mut stopped = old.clone();
        stopped["spec"]["stop"] = json!(true);
        stopped["spec"]["ttlSecondsAfterFinished"] = json!(3);
        assert!(check(Kind::HarnessRun, &stopped, Some(&old)).is_ok());
    }
}
