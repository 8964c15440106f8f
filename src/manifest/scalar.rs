//! What a plain YAML scalar means, as kubectl reads it: YAML 1.1 words for booleans, octal numbers with a leading zero.

use serde_json::{Number, Value};

/// A resolved scalar.
pub(super) struct Scalar {
    /// Its value.
    pub value: Value,
    /// True when it is a boolean written as a word that many take for a text, such as `no`.
    pub surprising: bool,
}

/// Resolves a plain scalar.
///
/// # Errors
/// The text, when it is a number that JSON does not have (infinity, not-a-number).
pub(super) fn resolve(text: &str) -> Result<Scalar, &str> {
    let plain = |value| Ok(Scalar { value, surprising: false });
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return plain(Value::Null),
        "true" | "True" | "TRUE" => return plain(true.into()),
        "false" | "False" | "FALSE" => return plain(false.into()),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Ok(Scalar { value: true.into(), surprising: true });
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Ok(Scalar { value: false.into(), surprising: true });
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(text);
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return plain(text.into());
    }
    let digits = text.replace('_', "");
    match integer(&digits) {
        Some(number) => plain(Value::Number(number)),
        None if looks_like_float(&digits) => float(&digits).map_or(Err(text), |n| plain(Value::Number(n))),
        None => plain(text.into()),
    }
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |prefixes: [&str; 2], radix| {
        let digits = prefixes.iter().find_map(|prefix| digits.strip_prefix(prefix))?;
        digits
            .starts_with(|c: char| c.is_digit(radix))
            .then(|| u64::from_str_radix(digits, radix).ok())
            .flatten()
    };
    let magnitude = radix(["0x", "0X"], 16)
        .or_else(|| radix(["0b", "0B"], 2))
        .or_else(|| radix(["0o", "0O"], 8))
        .or_else(|| if digits.len() > 1 { radix(["0", "0"], 8) } else { None })
        .or_else(|| decimal(digits))?;
    if negative {
        // i64::MIN has no positive counterpart
        Some(0i64.checked_sub_unsigned(magnitude)?.into())
    } else {
        Some(magnitude.into())
    }
}

fn decimal(digits: &str) -> Option<u64> {
    let octal_or_broken = digits.len() > 1 && digits.starts_with('0');
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    (all_digits && !octal_or_broken).then(|| digits.parse().ok()).flatten()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn looks_like_float(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => is_digits(fraction),
        Some((whole, fraction)) => is_digits(whole) && (fraction.is_empty() || is_digits(fraction)),
        None => is_digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(is_digits)
}

/// Whole numbers stay whole, as in JSON a reader cannot tell `1e3` from `1000`.
fn float(text: &str) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let number: f64 = text.parse().ok()?;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return Some((number as i64).into());
    }
    Number::from_f64(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_kubectl_reads() {
        let cases = [
            ("no", json!(false)),
            ("y", json!(true)),
            ("On", json!(true)),
            ("012", json!(10)),
            ("0o17", json!(15)),
            ("08", json!(8)),
            ("0x1F", json!(31)),
            ("-0b11", json!(-3)),
            ("1_000", json!(1000)),
            ("+5", json!(5)),
            ("-0", json!(0)),
            ("0", json!(0)),
            ("1e3", json!(1000)),
            ("1.", json!(1)),
            (".5", json!(0.5)),
            ("-1.5", json!(-1.5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("~", json!(null)),
            ("", json!(null)),
            ("2026-11-21", json!("2026-11-21")),
            ("1.2.3", json!("1.2.3")),
            ("12:30", json!("12:30")),
            ("1h", json!("1h")),
            (".", json!(".")),
            ("-", json!("-")),
            ("0x", json!("0x")),
            ("e3", json!("e3")),
            ("nO", json!("nO")),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text).ok().map(|s| s.value), Some(expected), "{text:?}");
        }
        for text in [".inf", "-.Inf", ".nan", "1e999"] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
