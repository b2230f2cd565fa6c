//! Durations as people and Consul write them: `20`, `20s`, `1m30s`, `500ms`.
//!
//! In this crate a duration is an `i64` of nanoseconds, as in Go and in Consul, since other clients
//! can store negative ones.

#![forbid(unsafe_code)]

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: i64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000 * MILLISECOND;

/// Parses a duration as Go's `time.ParseDuration` does, to nanoseconds: `1h30m`, `-1.5s`, `0`.
/// Returns `None` if it is not valid or does not fit.
pub fn parse_go(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let is_numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let number_end = rest.bytes().position(|byte| !is_numeric(byte))?;
        let (number, tail) = rest.split_at_checked(number_end)?;
        let unit_end = tail.bytes().position(is_numeric).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        total = total.checked_add(scale(number, unit_size(unit)?)?)?;
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

/// Parses a number of seconds (`20`, `0.5`), or a duration as [`parse_go`] does, to nanoseconds.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    match scale(digits, SECOND) {
        Some(nanoseconds) => Some(if negative { -nanoseconds } else { nanoseconds }),
        None => parse_go(text),
    }
}

/// Converts seconds to the nearest nanosecond: `0.1` is not exact as a binary fraction, but means
/// 100 ms. Returns `None` if the number is not finite or does not fit.
pub fn from_seconds(seconds: f64) -> Option<i64> {
    let nanoseconds = seconds * 1e9;
    // Over 2^53 (a hundred days) binary fractions are coarser; every range here ends below.
    (nanoseconds.abs() < 9e18).then(|| nanoseconds.round() as i64)
}

/// Formats a duration as Consul reads it: whole seconds as `20s`, else `1500ms`, else `1500000ns`.
pub fn format(nanoseconds: i64) -> String {
    if nanoseconds % SECOND == 0 {
        format!("{}s", nanoseconds / SECOND)
    } else if nanoseconds % MILLISECOND == 0 {
        format!("{}ms", nanoseconds / MILLISECOND)
    } else {
        format!("{nanoseconds}ns")
    }
}

/// Formats a duration for people, who can also type it so: `1m30s`, `2h`, `1.5s`, `500ms`.
pub fn for_people(nanoseconds: i64) -> String {
    let size = nanoseconds.unsigned_abs();
    let (minute, second) = (60 * SECOND.unsigned_abs(), SECOND.unsigned_abs());
    if size < second {
        return format(nanoseconds);
    }
    let mut text = String::from(if nanoseconds < 0 { "-" } else { "" });
    for (count, unit) in [(size / (60 * minute), "h"), (size / minute % 60, "m")] {
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    // Less than a minute.
    let rest = (size % minute) as i64;
    if rest > 0 {
        text += &format!("{}s", seconds(rest));
    }
    text
}

/// Formats a duration as a number of seconds: `15`, `0.5`.
fn seconds(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (size, second) = (nanoseconds.unsigned_abs(), SECOND.unsigned_abs());
    let text = format!("{sign}{}.{:09}", size / second, size % second);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration in nanoseconds whose JSON is the exact number of seconds: `15`, `0.5`. A binary
/// fraction is not exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub i64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(seconds(self.0)).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Returns a unit in nanoseconds. Go accepts both characters for micro.
fn unit_size(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => SECOND * 60,
        "h" => SECOND * 3600,
        _ => return None,
    })
}

/// Multiplies `digits[.digits]` by `unit`, truncated to whole nanoseconds as in Go.
fn scale(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Eighteen digits of an hour are finer than a nanosecond; the rest does not matter. In floating
    // point, as in Go.
    let (mut part, mut size) = (0.0, unit as f64);
    for digit in fraction.bytes().take(18) {
        part = part * 10.0 + f64::from(digit - b'0');
        size /= 10.0;
    }
    i64::try_from(whole).ok()?.checked_mul(unit)?.checked_add((part * size) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_parsed() {
        for (text, expected) in [
            ("0", Some(0)),
            ("+0", Some(0)),
            ("20s", Some(20 * SECOND)),
            ("1m30s", Some(90 * SECOND)),
            ("2h0m15s", Some(7215 * SECOND)),
            ("-1.5s", Some(-1500 * MILLISECOND)),
            (".5s", Some(500 * MILLISECOND)),
            ("1.s", Some(SECOND)),
            ("50ms", Some(50 * MILLISECOND)),
            ("3us", Some(3_000)),
            ("3µs", Some(3_000)),
            ("7ns", Some(7)),
            ("0.0000000001s", Some(0)),
            ("0.1234567890123456789012345s", Some(123_456_789)),
            ("2562047h", Some(9_223_369_200 * SECOND)),
            ("2562048h", None),
            ("99999999999999999999999999999999999999999s", None),
            ("", None),
            ("-", None),
            (".", None),
            (".s", None),
            ("20", None),
            ("s", None),
            ("5S", None),
            ("1d", None),
            (" 5s", None),
            ("5 s", None),
            ("1..5s", None),
            ("1e3s", None),
            ("20s5", None),
            ("--5s", None),
        ] {
            assert_eq!(parse_go(text), expected, "{text:?}");
        }
    }

    #[test]
    fn plain_numbers_are_seconds() {
        for (text, expected) in [
            ("20", Some(20 * SECOND)),
            ("0.5", Some(500 * MILLISECOND)),
            ("-5", Some(-5 * SECOND)),
            (" 20 ", Some(20 * SECOND)),
            ("20s", Some(20 * SECOND)),
            ("-20s", Some(-20 * SECOND)),
            ("0", Some(0)),
            ("9223372037", None),
            ("", None),
            ("abc", None),
            ("nan", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn binary_fractions_of_seconds_are_rounded() {
        for (seconds, expected) in [
            (0.1, Some(100 * MILLISECOND)),
            (0.0005, Some(500_000)),
            (20.0, Some(20 * SECOND)),
            (-0.5, Some(-500 * MILLISECOND)),
            (86400.0, Some(86400 * SECOND)),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (1e300, None),
            (8.9e9, Some(8_900_000_000 * SECOND)),
            (9e9, None),
            (-9e9, None),
        ] {
            assert_eq!(from_seconds(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn durations_are_formatted() {
        assert_eq!(format(20 * SECOND), "20s");
        assert_eq!(format(0), "0s");
        assert_eq!(format(1500 * MILLISECOND), "1500ms");
        assert_eq!(format(-5 * SECOND), "-5s");
        assert_eq!(format(1_000), "1000ns");
        for (nanoseconds, text) in [
            (0, "0s"),
            (15 * SECOND, "15s"),
            (90 * SECOND, "1m30s"),
            (600 * SECOND, "10m"),
            (86_400 * SECOND, "24h"),
            (3_605 * SECOND, "1h5s"),
            (1_500 * MILLISECOND, "1.5s"),
            (500 * MILLISECOND, "500ms"),
            (-90 * SECOND, "-1m30s"),
            (-5 * MILLISECOND, "-5ms"),
            (1, "1ns"),
        ] {
            assert_eq!(for_people(nanoseconds), text);
            assert_eq!(parse_go(text), Some(nanoseconds));
        }
        assert_eq!(for_people(i64::MIN), "-2562047h47m16.854775808s");
        for (nanoseconds, text) in
            [(15 * SECOND, "15"), (1500 * MILLISECOND, "1.5"), (-50 * MILLISECOND, "-0.05"), (1, "0.000000001")]
        {
            assert_eq!(serde_json::to_string(&Seconds(nanoseconds)).unwrap(), text);
        }
    }
}
