//! Deserialization of JSON whose fields may have any type.
//!
//! Other clients store anything that Consul accepts, and versions of Consul differ. So a value of
//! an unexpected type means the default and is not an error. Unknown fields are skipped without
//! being built, however deep they are nested.

#![forbid(unsafe_code)]

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Maximum number of elements in a list. Those of Consul are the checks of one session, all on one
/// node.
pub const MAX_ELEMENTS: usize = 250_000;

/// Beginning of the error for a list with more elements.
pub const TOO_MANY_ELEMENTS: &str = "too many elements";

/// A type that can be read from any JSON value. Each method reads one kind of value; a kind without
/// a method means the default.
pub trait Lenient: Default {
    /// Reads a scalar: any value but an array or an object.
    fn scalar(_: Scalar) -> Self {
        Self::default()
    }

    /// Reads an array.
    fn array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<Self, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    /// Reads an object.
    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// A JSON value that is neither an array nor an object.
#[derive(Debug, Default)]
pub enum Scalar {
    /// A string.
    String(String),
    /// A non-negative integer.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// Any other value, which no field accepts.
    #[default]
    Other,
}

impl Lenient for Scalar {
    fn scalar(scalar: Scalar) -> Scalar {
        scalar
    }
}

/// A scalar type. All are read by way of [`Scalar`], so that the JSON parser is compiled once.
pub trait FromScalar: Default {
    /// Converts the scalar; one of another type is the default.
    fn from_scalar(scalar: Scalar) -> Self;
}

impl FromScalar for String {
    fn from_scalar(scalar: Scalar) -> String {
        if let Scalar::String(text) = scalar { text } else { String::new() }
    }
}

/// An empty string is `None`: Consul leaves optional fields empty.
impl FromScalar for Option<String> {
    fn from_scalar(scalar: Scalar) -> Option<String> {
        Some(String::from_scalar(scalar)).filter(|text| !text.is_empty())
    }
}

impl FromScalar for i64 {
    fn from_scalar(scalar: Scalar) -> i64 {
        match scalar {
            Scalar::Unsigned(number) => number.try_into().unwrap_or_default(),
            Scalar::Negative(number) => number,
            _ => 0,
        }
    }
}

impl FromScalar for u64 {
    fn from_scalar(scalar: Scalar) -> u64 {
        if let Scalar::Unsigned(number) = scalar { number } else { 0 }
    }
}

/// Reads a field that is a scalar: `#[serde(deserialize_with = "scalar")]`.
pub fn scalar<'de, D: Deserializer<'de>, T: FromScalar>(deserializer: D) -> Result<T, D::Error> {
    lenient(deserializer).map(T::from_scalar)
}

/// Reads a field: `#[serde(deserialize_with = "lenient")]`.
pub fn lenient<'de, D: Deserializer<'de>, T: Lenient>(deserializer: D) -> Result<T, D::Error> {
    Any::deserialize(deserializer).map(|Any(value)| value)
}

impl Lenient for String {
    fn scalar(scalar: Scalar) -> String {
        String::from_scalar(scalar)
    }
}

impl<T: Lenient> Lenient for Vec<T> {
    fn array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(Any(element)) = array.next_element()? {
            if elements.len() == MAX_ELEMENTS {
                return Err(A::Error::custom(format_args!("{TOO_MANY_ELEMENTS}: at most {MAX_ELEMENTS} are accepted")));
            }
            if elements.is_empty() {
                // Most sessions have one check, and a list can have a hundred thousand sessions.
                elements.reserve_exact(1);
            }
            elements.push(element);
        }
        elements.shrink_to_fit();
        Ok(elements)
    }
}

/// A struct that derives `Deserialize` with `#[serde(default)]`. It is not read from an array.
pub trait Object: DeserializeOwned + Default {}

impl<T: Object> Lenient for T {
    fn object<'de, A: MapAccess<'de>>(object: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object))
    }
}

/// Reads any JSON value as a `T`.
#[derive(Debug)]
pub struct Any<T>(pub T);

impl<'de, T: Lenient> Deserialize<'de> for Any<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Any<T>, D::Error> {
        deserializer.deserialize_any(AnyVisitor(PhantomData)).map(Any)
    }
}

struct AnyVisitor<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for AnyVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::scalar(Scalar::Other))
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(T::scalar(Scalar::Negative(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(T::scalar(Scalar::Unsigned(number)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::scalar(Scalar::Other))
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::scalar(Scalar::String(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::scalar(Scalar::Other))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<T, A::Error> {
        T::array(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Sample {
        #[serde(deserialize_with = "scalar")]
        text: String,
        #[serde(deserialize_with = "scalar")]
        count: u64,
        #[serde(deserialize_with = "lenient")]
        list: Vec<String>,
    }

    impl Object for Sample {}

    fn read<T: Lenient>(json: &str) -> T {
        serde_json::from_str::<Any<T>>(json).unwrap_or_else(|error| panic!("{json}: {error}")).0
    }

    #[test]
    fn fields_of_another_type_are_the_default() {
        let expected = Sample { text: "a".into(), count: 7, list: vec!["x".into(), String::new(), "y".into()] };
        let json = r#"{"text": "a", "count": 7, "list": ["x", 1, "y"], "more": [[{"a": 1}]]}"#;
        assert_eq!(read::<Sample>(json), expected);
        for other in ["null", "true", "1.5", "-1", "[]", "[[1], {}]", "{}", "{\"a\": [1]}"] {
            let json = format!(r#"{{"text": {other}, "count": {other}, "list": {{}}}}"#);
            assert_eq!(read::<Sample>(&json), Sample::default(), "{json}");
        }
        // A number too large for a float: serde_json rejects it as it rejects invalid JSON.
        assert!(serde_json::from_str::<Any<Sample>>("1e400").is_err());
    }

    #[test]
    fn arrays_are_not_read_as_objects() {
        assert_eq!(read::<Sample>(r#"["a", 7, ["x"]]"#), Sample::default());
        assert_eq!(read::<Vec<Sample>>(r#"[{"text": "a"}, ["b"], 3]"#).len(), 3);
    }

    #[test]
    fn integers_out_of_range_are_the_default() {
        let [negative, large] = ["-5", "18446744073709551615"].map(|number| || read::<Scalar>(number));
        assert_eq!((i64::from_scalar(negative()), i64::from_scalar(large())), (-5, 0));
        assert_eq!((u64::from_scalar(negative()), u64::from_scalar(large())), (0, u64::MAX));
    }

    #[test]
    fn lists_of_too_many_elements_are_an_error() {
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(read::<Vec<String>>(&list(MAX_ELEMENTS)).len(), MAX_ELEMENTS);
        let error = serde_json::from_str::<Any<Vec<String>>>(&list(MAX_ELEMENTS + 1)).unwrap_err();
        assert!(error.to_string().starts_with(TOO_MANY_ELEMENTS), "{error}");
    }

    #[test]
    fn deep_nesting_is_skipped_or_an_error() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read::<Sample>(&format!(r#"{{"more": {}}}"#, deep(1_000_000))), Sample::default());
        assert!(serde_json::from_str::<Any<Sample>>(&"[".repeat(1_000_000)).is_err());
    }
}
