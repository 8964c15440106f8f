//! Checks an object against its kind.

use std::{fmt, sync::LazyLock};

use jsonschema::{
    Validator,
    error::{TypeKind, ValidationError, ValidationErrorKind},
};
use kube::core::cel::{self, CompiledSchema};
use serde_json::Value;

use super::{fields::escape, structural};
use crate::kinds::Kind;

/// What a violation is, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A number where a text belongs, and the like.
    WrongType,
    /// A field that must be there is not.
    MissingField,
    /// A word that is not one of the allowed ones.
    NotOneOf,
    /// A text that does not have the form it must have.
    BadFormat,
    /// A number, or the size of a text, list or map, beyond its bounds.
    OutOfBounds,
    /// A rule over one or several fields.
    RuleBroken,
}

impl Code {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongType => "WrongType",
            Self::MissingField => "MissingField",
            Self::NotOneOf => "NotOneOf",
            Self::BadFormat => "BadFormat",
            Self::OutOfBounds => "OutOfBounds",
            Self::RuleBroken => "RuleBroken",
        }
    }
}

/// One way in which an object is not what its kind says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: a JSON pointer (RFC 6901); for a missing field, its parent.
    pub pointer: String,
    /// What.
    pub code: Code,
    /// For people: what was expected and what is there.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.pointer.trim_start_matches('/').replace('/', ".");
        write!(f, "{}: {}", if field.is_empty() { "object" } else { &field }, self.message)
    }
}

struct Compiled {
    kind: Kind,
    structure: Validator,
    rules: CompiledSchema,
}

static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| Kind::ALL.into_iter().map(compile).collect());

fn compile(kind: Kind) -> Compiled {
    let schema = structural(kind);
    let structure = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        // formats of OpenAPI (int64) are not those of JSON Schema
        .should_validate_formats(false)
        // linear time: patterns are run over what strangers write
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .offline()
        .build(schema)
        .expect("the schema of a kind compiles");
    Compiled { kind, structure, rules: cel::compile_schema(schema) }
}

/// Checks an object: types, bounds and CEL rules; with `old`, also the rules on how it may change. Unknown fields are
/// not looked at, see [`super::unknown_fields`].
///
/// # Errors
/// All violations, by the place of the field.
///
/// # Panics
/// Never: every kind is compiled.
pub fn check(kind: Kind, object: &Value, old: Option<&Value>) -> Result<(), Vec<Violation>> {
    let compiled = COMPILED.iter().find(|compiled| compiled.kind == kind).expect("every kind is compiled");
    let mut violations: Vec<Violation> =
        compiled.structure.iter_errors(object).map(|error| violation(&error)).collect();
    let well_formed = violations.is_empty();
    if let Err(errors) = cel::validate_compiled(&compiled.rules, object, old) {
        // a rule that cannot be evaluated over a wrong type says nothing new
        let telling =
            |error: &&cel::ValidationError| well_formed || error.kind == cel::ErrorKind::ValidationFailure;
        violations.extend(errors.iter().filter(telling).map(|error| Violation {
            pointer: pointer(&error.field_path, object),
            code: Code::RuleBroken,
            message: error.message.clone(),
        }));
    }
    // a value of the wrong type breaks everything else as well
    let mistyped: Vec<String> =
        violations.iter().filter(|v| v.code == Code::WrongType).map(|v| v.pointer.clone()).collect();
    violations.retain(|v| v.code == Code::WrongType || !mistyped.contains(&v.pointer));
    violations.sort_by(|a, b| (&a.pointer, a.code, &a.message).cmp(&(&b.pointer, b.code, &b.message)));
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

fn violation(error: &ValidationError<'_>) -> Violation {
    use ValidationErrorKind as K;
    let got = brief(error.instance());
    let (code, message) = match error.kind() {
        K::Type { kind } => (Code::WrongType, format!("expected {}, got {got}", types(kind))),
        K::Required { property } => {
            (Code::MissingField, format!("field {:?} is needed", property.as_str().unwrap_or_default()))
        }
        K::Enum { options } => (Code::NotOneOf, format!("expected one of {}, got {got}", words(options))),
        K::Pattern { pattern } => (Code::BadFormat, format!("{got} does not have the form {pattern}")),
        K::MaxLength { limit } => (Code::OutOfBounds, format!("at most {limit} characters are allowed")),
        K::MinLength { limit } => (Code::OutOfBounds, format!("at least {limit} characters are needed")),
        K::MaxItems { limit } => (Code::OutOfBounds, format!("at most {limit} entries are allowed")),
        K::MinItems { limit } => (Code::OutOfBounds, format!("at least {limit} entries are needed")),
        K::MaxProperties { limit } => (Code::OutOfBounds, format!("at most {limit} keys are allowed")),
        K::Maximum { limit } => (Code::OutOfBounds, format!("expected at most {}, got {got}", number(limit))),
        K::Minimum { limit } => {
            (Code::OutOfBounds, format!("expected at least {}, got {got}", number(limit)))
        }
        _ => (Code::RuleBroken, error.masked().to_string()),
    };
    Violation { pointer: error.instance_path().as_str().to_owned(), code, message }
}

fn types(kind: &TypeKind) -> String {
    let article = |name: &str| match name {
        "string" => "a text".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "a map".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    };
    match kind {
        TypeKind::Single(one) => article(one.as_str()),
        TypeKind::Multiple(many) => {
            many.iter().map(|one| article(one.as_str())).collect::<Vec<_>>().join(" or ")
        }
    }
}

/// A bound without the `.0` that it gets from `OpenAPI`, where every bound is a float.
fn number(limit: &Value) -> String {
    let text = limit.to_string();
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn words(options: &Value) -> String {
    let words = options.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(", ")
}

/// A value in a few words. Texts are cut: a message is shown in many places.
fn brief(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("the text {:?}…", text.chars().take(40).collect::<String>())
        }
        Value::String(text) => format!("the text {text:?}"),
        other => other.to_string(),
    }
}

/// Turns `spec.env[0].name` into a pointer. A key with a dot is found by looking into the object.
fn pointer(path: &str, object: &Value) -> String {
    let mut pointer = String::new();
    let (mut rest, mut at) = (path.trim_start_matches('.'), Some(object));
    while !rest.is_empty() {
        let segment = match rest.strip_prefix('[') {
            Some(index) => index.split(']').next().unwrap_or_default(),
            None => key(rest, at),
        };
        let taken = segment.len() + if rest.starts_with('[') { 2 } else { 0 };
        at = at.and_then(|value| value.get(segment).or_else(|| value.get(segment.parse::<usize>().ok()?)));
        pointer = format!("{pointer}/{}", escape(segment));
        rest = rest.get(taken..).unwrap_or_default();
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    pointer
}

fn key<'a>(rest: &'a str, at: Option<&Value>) -> &'a str {
    let ends = rest.match_indices(['.', '[']).map(|(end, _)| end).chain([rest.len()]);
    let keys = ends.map(|end| &rest[..end]);
    let known = keys.clone().find(|key| at.is_some_and(|value| value.get(key).is_some()));
    known.or_else(|| keys.into_iter().next()).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::API_VERSION;

    fn run(spec: &Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": "HarnessRun", "metadata": {"name": "x"}, "spec": spec})
    }

    #[test]
    fn each_violation_has_its_code_place_and_words() {
        let cases = [
            (
                json!({"stop": "no"}),
                "/spec/stop",
                Code::WrongType,
                "expected true or false, got the text \"no\"",
            ),
            (json!({"env": {}}), "/spec/env", Code::WrongType, "expected a list, got a map"),
            (json!({"sessionRef": {}}), "/spec/sessionRef", Code::MissingField, "field \"name\" is needed"),
            (
                json!({"startFrom": "Head"}),
                "/spec/startFrom",
                Code::NotOneOf,
                "expected one of Ref, PreviousRun, got the text \"Head\"",
            ),
            (
                json!({"timeout": "1 h"}),
                "/spec/timeout",
                Code::BadFormat,
                r#"the text "1 h" does not have the form ^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"#,
            ),
            (
                json!({"ttlSecondsAfterFinished": -1}),
                "/spec/ttlSecondsAfterFinished",
                Code::OutOfBounds,
                "expected at least 0, got -1",
            ),
            (
                json!({"task": {}}),
                "/spec/task",
                Code::RuleBroken,
                "exactly one of prompt and promptFrom is needed",
            ),
        ];
        for (spec, at, code, message) in cases {
            let violations = check(Kind::HarnessRun, &run(&spec), None).unwrap_err();
            assert_eq!(
                violations,
                [Violation { pointer: at.into(), code, message: message.into() }],
                "{spec}"
            );
        }
        let missing = json!({"apiVersion": API_VERSION, "kind": "HarnessRun", "metadata": {"name": "x"}});
        assert_eq!(check(Kind::HarnessRun, &missing, None).unwrap_err()[0].code, Code::MissingField);
    }

    #[test]
    fn a_good_object_passes() {
        let spec = json!({"task": {"prompt": "x"}, "timeout": "1h30m", "env": [{"name": "A", "value": "b"}]});
        assert_eq!(check(Kind::HarnessRun, &run(&spec), None), Ok(()));
    }

    #[test]
    fn paths_of_rules_become_pointers() {
        let object = json!({"spec": {"a.b": [{"c": 1}]}});
        assert_eq!(pointer("spec.a.b[0].c", &object), "/spec/a.b/0/c");
        assert_eq!(pointer("", &object), "");
    }
}
