//! One definition of every kind for everyone: CRDs, schemas for editors, and the checks of files and stores.
//!
//! It is made from the typed kinds in [`crate::kinds`]; `shape` adds what types do not say: a bound on every list, map and
//! string, and the rules that span fields. Files, the embedded store and, by its CRDs, an API server check the same.

mod check;
mod editor;
mod fields;
mod rules;
mod shape;

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::CustomResourceExt;
use serde_json::Value;

pub use check::{Code, Violation, check};
pub use editor::{all_json_schemas, json_schema};

pub use fields::{UnknownField, prune, unknown_fields};
pub(crate) use fields::{closest, drop_nulls, escape};

use crate::kinds::{Agent, ConfigRepository, EgressPolicy, HarnessRun, Kind, Session};

/// The schema of an object of `kind`: OpenAPI v3 in its structural form, bounded and with its CEL rules.
///
/// # Panics
/// Never: every kind has one.
#[must_use]
pub fn structural(kind: Kind) -> &'static Value {
    static SCHEMAS: LazyLock<Vec<(Kind, Value)>> = LazyLock::new(|| {
        let of = |kind| {
            (
                kind,
                if kind == Kind::ConfigMap { shape::config_map() } else { shape::of(kind, &derived(kind)) },
            )
        };
        Kind::ALL.into_iter().map(of).collect()
    });
    SCHEMAS.iter().find(|(k, _)| *k == kind).map(|(_, schema)| schema).expect("every kind has a schema")
}

/// The `CustomResourceDefinition` of each kind of our group.
///
/// # Panics
/// Never: the test of this module turns each schema into its CRD.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let of = |kind| {
        let mut crd = derived(kind);
        let schema = serde_json::from_value(structural(kind).clone())
            .expect("a structural schema is a JSONSchemaProps");
        for version in &mut crd.spec.versions {
            version.schema.get_or_insert_default().open_api_v3_schema = Some(Clone::clone(&schema));
        }
        crd
    };
    Kind::OURS.into_iter().map(of).collect()
}

/// The CRDs as one YAML stream, ready for `kubectl apply -f -`.
///
/// # Panics
/// Never: a CRD is plain data.
#[must_use]
pub fn crds_yaml() -> String {
    let documents = crds();
    let yaml = documents.iter().map(|crd| serde_saphyr::to_string(crd).expect("a CRD is plain data"));
    yaml.map(|text| format!("---\n{text}")).collect::<Vec<_>>().concat()
}

/// Fills in the defaults of the schema, as an API server does. Only status has any.
#[must_use]
pub fn with_defaults(kind: Kind, object: &Value) -> Value {
    kube::core::cel::apply_defaults(structural(kind), object)
}

fn derived(kind: Kind) -> CustomResourceDefinition {
    match kind {
        Kind::ConfigRepository => ConfigRepository::crd(),
        Kind::EgressPolicy => EgressPolicy::crd(),
        Kind::Agent => Agent::crd(),
        Kind::Session => Session::crd(),
        Kind::HarnessRun => HarnessRun::crd(),
        Kind::ConfigMap => unreachable!("a ConfigMap is built in"),
    }
}
