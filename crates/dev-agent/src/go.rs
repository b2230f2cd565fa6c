//! The parts of Go's standard library that Consul's answers show: how it parses JSON and durations,
//! and the texts of its errors.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

/// Parses the first JSON value of `body` and ignores the rest. `go_type` appears in the error.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8], go_type: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    T::deserialize(&mut json).map_err(|error| {
        let start = body.trim_ascii_start().first();
        match (error.is_eof(), error.is_data(), start) {
            (true, _, None) => "EOF".into(),
            (true, ..) => "unexpected EOF".into(),
            (_, true, Some(start)) => {
                let kind = match start {
                    b'{' => "object",
                    b'[' => "array",
                    b'"' => "string",
                    b't' | b'f' => "bool",
                    _ => "number",
                };
                format!("json: cannot unmarshal {kind} into Go value of type {go_type}")
            }
            _ => syntax_error(body, &error),
        }
    })
}

/// Returns Go's text of a syntax error, or serde's where it has no text of Go's.
fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let contexts = [
        ("key must be a string", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected value", "looking for beginning of value"),
    ];
    let Some((_, context)) = contexts.iter().find(|(start, _)| text.starts_with(start)) else { return text };
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    match line.and_then(|line| line.get(error.column().checked_sub(1)?)) {
        Some(b'\'') => format!(r"invalid character '\'' {context}"),
        Some(byte) if matches!(byte, b' '..=b'~') => format!("invalid character '{}' {context}", char::from(*byte)),
        _ => text,
    }
}

/// A JSON object in the order of its source. Keys that differ only in case are one field, and the
/// last one counts.
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// Parses an object as [`read`] does. `null` is an empty object.
    pub fn read(body: &[u8], go_type: &str) -> Result<Object, String> {
        read(body, go_type)
    }

    /// Sets each of `strings`, which are given by the field's name, and passes every other field to
    /// `other`. `path` appears in the error.
    pub fn read_into<E: From<String>>(
        self,
        path: &str,
        strings: &mut [(&str, &mut String)],
        mut other: impl FnMut(&str, Value) -> Result<(), E>,
    ) -> Result<(), E> {
        for (field, value) in self.0 {
            match strings.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(&field)) {
                Some((name, target)) => set_string(target, value, &format!("{path}.{name}"), "string")?,
                None => other(&field, value)?,
            }
        }
        Ok(())
    }
}

impl From<serde_json::Map<String, Value>> for Object {
    fn from(map: serde_json::Map<String, Value>) -> Object {
        Object(map.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Object, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }

            fn visit_unit<E>(self) -> Result<Object, E> {
                Ok(Object(Vec::new()))
            }
        }
        json.deserialize_any(Fields)
    }
}

/// Sets `target` to a string; `null` leaves it as it is. `field` and `go_type` appear in the error.
pub fn set_string(target: &mut String, value: Value, field: &str, go_type: &str) -> Result<(), String> {
    match value {
        Value::Null => {}
        Value::String(text) => *target = text,
        other => return Err(mismatch(&other, field, go_type)),
    }
    Ok(())
}

/// Reads an array of strings, in which `null` is an empty string. Returns `None` for `null`.
pub fn strings(value: Value, field: &str, go_type: &str) -> Result<Option<Vec<String>>, String> {
    let item = |value| {
        let mut text = String::new();
        set_string(&mut text, value, field, go_type).map(|()| text)
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => items.into_iter().map(item).collect::<Result<_, _>>().map(Some),
        other => Err(mismatch(&other, field, &format!("[]{go_type}"))),
    }
}

/// Reads an object of strings, in which `null` is an empty string. Returns `None` for `null`.
pub fn string_map(value: Value, field: &str) -> Result<Option<BTreeMap<String, String>>, String> {
    let entry = |(key, value)| {
        let mut text = String::new();
        set_string(&mut text, value, field, "string").map(|()| (key, text))
    };
    match value {
        Value::Null => Ok(None),
        Value::Object(entries) => entries.into_iter().map(entry).collect::<Result<_, _>>().map(Some),
        other => Err(mismatch(&other, field, "map[string]string")),
    }
}

/// Reads a number without sign or fraction; `null` is 0.
pub fn uint64(value: &Value, field: &str) -> Result<u64, String> {
    match value {
        Value::Null => Ok(0),
        value => value.as_u64().ok_or_else(|| mismatch(value, field, "uint64")),
    }
}

/// Reads a whole number; `null` is 0.
pub fn int(value: &Value, field: &str) -> Result<i64, String> {
    match value {
        Value::Null => Ok(0),
        value => value.as_i64().ok_or_else(|| mismatch(value, field, "int")),
    }
}

/// Reads a boolean; `null` is `false`.
pub fn boolean(value: &Value, field: &str) -> Result<bool, String> {
    match value {
        Value::Null => Ok(false),
        value => value.as_bool().ok_or_else(|| mismatch(value, field, "bool")),
    }
}

/// Parses a number as `strconv.ParseUint` does.
///
/// # Errors
///
/// Go's text.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let cause = if is_number { "value out of range" } else { "invalid syntax" };
    // Rust alone would accept a sign.
    let number = if is_number { text.parse().ok() } else { None };
    number.ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {cause}"))
}

/// Returns Go's error for a field that a strict endpoint does not have.
pub fn unknown_field<E: From<String>>(name: &str) -> Result<(), E> {
    Err(format!("json: unknown field {name:?}").into())
}

/// Returns Go's error for a value of the wrong type.
pub fn mismatch(value: &Value, field: &str, go_type: &str) -> String {
    let number;
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        // Go shows a number that is not in the range of an integer.
        Value::Number(found) if ["int", "uint64"].contains(&go_type) => {
            number = format!("number {found}");
            &number
        }
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go struct field {field} of type {go_type}")
}

/// Parses a duration as `time.ParseDuration` does, in nanoseconds.
///
/// # Errors
///
/// Go's text.
pub fn duration(text: &str) -> Result<i64, String> {
    if let Some(nanoseconds) = parse_duration(text) {
        return Ok(nanoseconds);
    }
    let number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = text.trim_start_matches(['+', '-']);
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        rest = rest.trim_start_matches(number);
        let (unit, after) = rest.split_at(rest.find(number).unwrap_or(rest.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        if parse_duration(&format!("1{unit}")).is_none() {
            return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text)));
        }
        rest = after;
    }
    Err(format!("time: invalid duration {}", quote(text)))
}

/// Parses what `time.ParseDuration` accepts: `1h30m`, `-1.5s`, `0`. Returns `None` for any other
/// text and for a duration that does not fit.
fn parse_duration(text: &str) -> Option<i64> {
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
        let in_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let number_end = rest.bytes().position(|byte| !in_number(byte))?;
        let (number, tail) = rest.split_at_checked(number_end)?;
        let unit_end = tail.bytes().position(in_number).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        total = total.checked_add(scale(number, unit_size(unit)?)?)?;
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

/// Returns the size of a unit in nanoseconds. Go accepts both signs for micro.
fn unit_size(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => SECOND * 60,
        "h" => SECOND * 3600,
        _ => return None,
    })
}

/// Multiplies `digits[.digits]` by `unit`, and cuts the product to whole nanoseconds as Go does.
fn scale(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Eighteen digits are finer than a nanosecond of an hour, so the rest cannot matter. Go
    // computes in floating point too.
    let (mut part, mut size) = (0.0, unit as f64);
    for digit in fraction.bytes().take(18) {
        part = part * 10.0 + f64::from(digit - b'0');
        size /= 10.0;
    }
    i64::try_from(whole).ok()?.checked_mul(unit)?.checked_add((part * size) as i64)
}

/// Quotes a text as Go's package `time` does, which escapes each byte that is not ASCII.
fn quote(text: &str) -> String {
    let quoted = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("\"{}\"", quoted.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_as_in_go() {
        for (text, expected) in [
            ("0", Some(0)),
            ("+0", Some(0)),
            ("20s", Some(20 * SECOND)),
            ("1m30s", Some(90 * SECOND)),
            ("2h0m15s", Some(7215 * SECOND)),
            ("-1.5s", Some(-1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(SECOND)),
            ("50ms", Some(50_000_000)),
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
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }
}
