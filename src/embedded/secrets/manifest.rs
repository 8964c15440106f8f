//! Reads Secret manifests. No error holds a piece of the text.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::Deserialize;

use super::{Bytes, Name};
use crate::ports::secrets::SecretData;

/// A Secret.
pub(super) struct Secret {
    pub(super) name: Name,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: SecretData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    metadata: Option<Metadata>,
    data: Option<BTreeMap<String, SecretString>>,
    string_data: Option<BTreeMap<String, SecretString>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Reads all Secrets of a text of one or several YAML documents; other kinds are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Secret>, String> {
    let documents: Vec<Document> =
        serde_saphyr::from_multiple(text).map_err(|error| match error.location() {
            Some(at) => format!("not YAML of a Secret, at line {}", at.line()),
            None => "not YAML of a Secret".to_owned(),
        })?;
    documents.into_iter().filter(|document| document.kind == "Secret").map(secret).collect()
}

fn secret(document: Document) -> Result<Secret, String> {
    let metadata = document.metadata.ok_or("a Secret has no metadata")?;
    let name = metadata.name.parse().map_err(|_| "a Secret has a bad name")?;
    if document.api_version != "v1" {
        return Err(format!("Secret {name} has an apiVersion other than v1"));
    }
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let namespace = namespace.parse().map_err(|_| format!("Secret {name} has a bad namespace"))?;
    let mut data = SecretData::new();
    for (key, value) in document.data.unwrap_or_default() {
        let bytes = STANDARD
            .decode(value.expose_secret().trim())
            .map_err(|_| format!("Secret {name}: data.{key} is not base64"))?;
        data.insert(key, bytes_of(bytes));
    }
    for (key, value) in document.string_data.unwrap_or_default() {
        data.insert(key, bytes_of(value.expose_secret().as_bytes().to_vec()));
    }
    let annotations = metadata.annotations.unwrap_or_default();
    Ok(Secret { name: (namespace, name), annotations, data })
}

fn bytes_of(bytes: Vec<u8>) -> Bytes {
    SecretBox::new(Box::new(bytes))
}
