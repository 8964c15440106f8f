//! The absolute times of OpenSSH (ssh-keygen(1), `valid-after`): `YYYYMMDD` or `YYYYMMDDHHMM[SS]`, then `Z`, `UTC` or nothing for local time.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

pub(super) fn parse(text: &str, local: &TimeZone) -> Option<Timestamp> {
    let (digits, zone) = match strip_utc(text) {
        Some(digits) => (digits, &TimeZone::UTC),
        None => (text, local),
    };
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |part| part.parse::<i8>().ok());
    let year = digits[..4].parse::<i16>().ok()?;
    let moment =
        DateTime::new(year, part(4, 6)?, part(6, 8)?, part(8, 10)?, part(10, 12)?, part(12, 14)?, 0).ok()?;
    zone.to_timestamp(moment).ok()
}

fn strip_utc(text: &str) -> Option<&str> {
    ["Z", "z"].iter().find_map(|mark| text.strip_suffix(mark)).or_else(|| {
        let (head, tail) = text.split_at_checked(text.len().checked_sub(3)?)?;
        tail.eq_ignore_ascii_case("utc").then_some(head)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_openssh() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        for (text, expected) in [
            ("20260102", "2026-01-01T22:00:00Z"),
            ("20260102Z", "2026-01-02T00:00:00Z"),
            ("20260102UTC", "2026-01-02T00:00:00Z"),
            ("202601020304Z", "2026-01-02T03:04:00Z"),
            ("20260102030405z", "2026-01-02T03:04:05Z"),
            ("20260102030405", "2026-01-02T01:04:05Z"),
        ] {
            assert_eq!(parse(text, &east), Some(expected.parse().unwrap()), "{text}");
        }
        for bad in
            ["", "Z", "2026", "20261301Z", "20260230Z", "2026010203Z", "2026-01-02", "+1234567", "２０２６"]
        {
            assert_eq!(parse(bad, &east), None, "{bad}");
        }
    }
}
