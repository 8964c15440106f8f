//! The charts: rendered, installed and upgraded by the real Helm, on a real API server.

mod accounts;
mod documented;
mod exec;
mod helm;
mod image;
mod install;
mod render;
mod rights;
mod smoke;
mod verbs;

use serde_json::Value;

/// The checkout.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The one value that is needed.
const IMAGE: &str = "image.repository=registry.example.com/ostler";
/// The roles, as their objects end.
const ROLES: [&str; 4] = ["controller", "recorder", "api", "proxy"];

/// The objects of a text with several documents.
fn objects(manifests: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    all.into_iter().filter(|object| !object.is_null()).collect()
}

fn of_kind<'a>(all: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(move |object| object["kind"] == kind)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}
