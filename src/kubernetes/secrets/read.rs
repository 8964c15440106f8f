//! Reads the text of a Secret in two steps, so that values are decoded only once their use is allowed. No error holds a
//! piece of the text.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::Deserialize;

use crate::ports::secrets::SecretData;

/// A Secret without its data.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) resource_version: Option<String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Values {
    data: Option<BTreeMap<String, SecretString>>,
}

pub(super) fn head(text: &str) -> Result<Head, String> {
    serde_json::from_str(text).map_err(|_| "the API server's answer is no Secret".to_owned())
}

pub(super) fn data(text: &str) -> Result<SecretData, String> {
    let values: Values = serde_json::from_str(text).map_err(|_| "its data is not text by key".to_owned())?;
    let decode = |(key, value): (String, SecretString)| {
        let bytes =
            STANDARD.decode(value.expose_secret()).map_err(|_| format!("data.{key} is not base64"))?;
        Ok((key, SecretBox::new(Box::new(bytes))))
    };
    values.data.unwrap_or_default().into_iter().map(decode).collect()
}
