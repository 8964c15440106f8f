//! Quantities as Kubernetes users write them: `500m`, `2`, `10Gi`.

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as 500m, 2 or 10Gi")]
pub struct InvalidQuantity(pub String);

/// Suffixes and their factors, in thousandths.
const SUFFIXES: [(&str, u128); 9] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
];

/// A quantity in thousandths, as CPU is counted.
///
/// # Errors
/// When the text is no quantity, or too large for 64 bits.
pub fn millis(text: &str) -> Result<u64, InvalidQuantity> {
    thousandths(text).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| InvalidQuantity(text.to_owned()))
}

/// A quantity in whole units, rounded up, as bytes are counted.
///
/// # Errors
/// When the text is no quantity, or too large for 64 bits.
pub fn units(text: &str) -> Result<u64, InvalidQuantity> {
    thousandths(text)
        .and_then(|n| u64::try_from(n.div_ceil(1000)).ok())
        .ok_or_else(|| InvalidQuantity(text.to_owned()))
}

fn thousandths(text: &str) -> Option<u128> {
    let suffix = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (number, factor) =
        suffix.map_or((text, 1000), |(suffix, factor)| (&text[..text.len() - suffix.len()], *factor));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    Some(digits.checked_mul(factor)?.div_ceil(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in
            [("2", 2000), ("500m", 500), ("0.5", 500), ("1.5k", 1_500_000), ("1Ki", 1_024_000), ("0.0001", 1)]
        {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("10Gi", 10 << 30), ("1M", 1_000_000), ("1.5Gi", 3 << 29), ("100m", 1)] {
            assert_eq!(units(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "-1", "1.2.3", "Gi", "1e3", "99999999999999999999Ti"] {
            assert!(units(text).is_err(), "{text}");
        }
    }
}
