//! What Consul takes over from Go: how JSON is read, and the texts about JSON and durations that do not parse.

use consul_session::duration::parse_go;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Reads the first value of `body`; what comes after it is ignored. `go_type` is for the text of the error.
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
            _ => error.to_string(),
        }
    })
}

/// A JSON object in the order of its source: keys that differ only in case are one field, and the last one counts.
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// [`read`]s an object. `null` is an empty one.
    pub fn read(body: &[u8], go_type: &str) -> Result<Object, String> {
        read(body, go_type)
    }

    /// Sets each of `strings`, given by the field's name, and passes every other field to `other`. `path` is for the text
    /// of the error.
    pub fn read_into(
        self,
        path: &str,
        strings: &mut [(&str, &mut String)],
        mut other: impl FnMut(&str, Value) -> Result<(), String>,
    ) -> Result<(), String> {
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

/// Sets `target` to a string; `null` leaves it. `field` and `go_type` are for the text of the error.
pub fn set_string(target: &mut String, value: Value, field: &str, go_type: &str) -> Result<(), String> {
    match value {
        Value::Null => {}
        Value::String(text) => *target = text,
        other => return Err(mismatch(&other, field, go_type)),
    }
    Ok(())
}

/// An array of strings, in which `null` is an empty one; `None` for `null`.
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

/// Go's text about a field that a strict endpoint does not have.
pub fn unknown_field(name: &str) -> Result<(), String> {
    Err(format!("json: unknown field {name:?}"))
}

/// Go's text about a value of the wrong type.
pub fn mismatch(value: &Value, field: &str, go_type: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go struct field {field} of type {go_type}")
}

/// `time.ParseDuration`, in nanoseconds, with its errors.
pub fn duration(text: &str) -> Result<i64, String> {
    if let Some(nanoseconds) = parse_go(text) {
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
        if parse_go(&format!("1{unit}")).is_none() {
            return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text)));
        }
        rest = after;
    }
    Err(format!("time: invalid duration {}", quote(text)))
}

/// Package time's way to quote: what is not ASCII, byte by byte.
fn quote(text: &str) -> String {
    let quoted = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("\"{}\"", quoted.collect::<String>())
}
