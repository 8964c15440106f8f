//! The digest of a run: what a claim, a result and a review speak of.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Fields that may change after the claim; the digest leaves them out.
pub const CHANGEABLE: [&str; 2] = ["stop", "ttlSecondsAfterFinished"];

/// The digest of a run as its author wrote it: `v1:` and the SHA-256, in hexadecimal, of the spec as canonical JSON
/// (RFC 8785) without [`CHANGEABLE`], a zero byte, and the bytes of the prompt file, if the prompt is one.
///
/// Defaults are not part of it, so an upgrade that changes one changes no digest.
///
/// # Panics
/// Never: a JSON value has a canonical form.
#[must_use]
pub fn of_run(spec: &Value, prompt: Option<&[u8]>) -> String {
    let mut spec = spec.clone();
    if let Value::Object(fields) = &mut spec {
        fields.retain(|name, _| !CHANGEABLE.contains(&name.as_str()));
    }
    let canonical = serde_json_canonicalizer::to_vec(&spec).expect("a JSON value has a canonical form");
    let mut hash = Sha256::new();
    hash.update(canonical);
    hash.update([0]);
    hash.update(prompt.unwrap_or_default());
    format!("v1:{}", hex(&hash.finalize()))
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digest_is_what_it_was() {
        // printf '{"task":{"prompt":"x"}}\0' | sha256sum
        let expected = "v1:b33c5bc1169eb76ec594ca06ab88b0e188e99f12776cf2d1bdfeb607a46368f8";
        assert_eq!(of_run(&json!({"task": {"prompt": "x"}}), None), expected);
        // printf '{"a":1,"b":"é"}\0hello' | sha256sum
        let expected = "v1:bfd35683c59fc06946d0704847eb009ac21810713b3febd7ead283eb6cc54032";
        assert_eq!(of_run(&json!({"b": "é", "a": 1.0}), Some(b"hello")), expected);
    }

    #[test]
    fn order_stop_and_ttl_do_not_count_but_the_prompt_does() {
        let plain = of_run(&json!({"a": 1, "b": 2}), None);
        assert_eq!(plain, of_run(&json!({"b": 2, "a": 1, "stop": true, "ttlSecondsAfterFinished": 9}), None));
        assert_ne!(plain, of_run(&json!({"a": 1, "b": 2}), Some(b"p")));
        assert_ne!(plain, of_run(&json!({"a": 1, "b": 2, "c": {"stop": true}}), None), "only at the top");
    }
}
