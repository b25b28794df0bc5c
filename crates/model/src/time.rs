//! Durations and points in time, as the APIs write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since the Unix epoch; objects are ordered by it, nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

/// A duration as proto JSON or Go writes it: `1.5s`, `100ms`, `1h30m`. Negative durations are not accepted: no field of
/// the mesh has a meaning for them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write it like 1.5s, 100ms or 1h30m")]
pub struct BadDuration(String);

/// Go's and proto's duration texts.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    const UNITS: [(&str, f64); 7] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)];
    let bad = || BadDuration(text.to_owned());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos = 0f64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let (unit, scale) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(bad)?;
        nanos += number * scale;
        rest = &rest[unit.len()..];
    }
    // Proto durations end at about 10,000 years.
    if nanos > 315_576_000_000.0 * 1e9 { Err(bad()) } else { Ok(Duration::from_nanos_u128(nanos.round() as u128)) }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        span.0
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        parse_duration(&text).map(Span).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&proto_duration(self.0))
    }
}

/// The proto JSON form: seconds with as many decimals as needed in groups of three.
pub fn proto_duration(d: Duration) -> String {
    match d.subsec_nanos() {
        0 => format!("{}s", d.as_secs()),
        n if n % 1_000_000 == 0 => format!("{}.{:03}s", d.as_secs(), n / 1_000_000),
        n if n % 1_000 == 0 => format!("{}.{:06}s", d.as_secs(), n / 1_000),
        n => format!("{}.{n:09}s", d.as_secs()),
    }
}

/// Parses the RFC 3339 form that Kubernetes writes (`2026-01-01T00:00:00Z`, with optional decimals or a numeric offset).
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let offset = match text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit()) {
        "Z" | "z" => 0,
        o => {
            let sign = if o.starts_with('-') { -1 } else { 1 };
            let (h, m) = o.get(1..)?.split_once(':')?;
            sign * (h.parse::<i64>().ok()? * 3600 + m.parse::<i64>().ok()? * 60)
        }
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since the epoch of a proleptic Gregorian date, with March as the first month of the year.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp(days * 86_400 + hour * 3600 + minute * 60 + second - offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_and_proto() {
        for (text, millis) in [
            ("1s", 1000),
            ("1.5s", 1500),
            ("100ms", 100),
            ("1h30m", 5_400_000),
            ("0", 0),
            ("0s", 0),
            ("10d", -1),
            ("5", -1),
            ("", -1),
            ("-1s", -1),
        ] {
            let expected = u64::try_from(millis).ok().map(Duration::from_millis);
            assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn timestamps_of_kubernetes() {
        assert_eq!(parse_timestamp("1970-01-01T00:00:00Z"), Some(Timestamp(0)));
        assert_eq!(parse_timestamp("2026-08-01T12:00:00.123Z"), Some(Timestamp(1_785_585_600)));
        assert_eq!(parse_timestamp("2000-03-01T01:00:00+01:00"), Some(Timestamp(951_868_800)));
        assert_eq!(parse_timestamp("yesterday"), None);
    }
}
