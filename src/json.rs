//! JSON: one small type for what Consul and hosts send, and for what this crate writes.
//!
//! It is ours for two reasons: sessions that others made must never fail to be read, whatever their fields hold; and what serde
//! makes for each type, or `serde_json::Value` with its maps and its printing of floats, would be half of the component.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
mod parse;
mod plain;

use crate::session::Session;
use crate::text::Text;
use alloc::borrow::Cow;
use core::fmt;
pub use parse::SyntaxError;
pub use plain::{Name, Plain};

/// A JSON value. Texts are borrowed where they have no escapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`, and what is not there.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Fraction(f64),
    /// A duration in nanoseconds. Only written, as seconds: `15`, `0.5`.
    Seconds(i64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Json<'a>>),
    /// A list of texts. Only written: where they stand already.
    Texts(&'a [Text]),
    /// A list of sessions. Only written, since as objects they would be ten times as large.
    Sessions(&'a [Session]),
    /// An object, in the order in which it stands there.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Parses a text that is one JSON value.
    pub fn parse(bytes: &'a [u8]) -> Result<Json<'a>, SyntaxError> {
        parse::parse(bytes)
    }

    /// Parses a list of objects. Each becomes what is wanted while it is read: a list of a hundred thousand sessions is never in
    /// memory as JSON values. `None` if it is no list; an element that is no object has no fields.
    pub fn parse_list<T: FromFields>(bytes: &'a [u8]) -> Result<Option<Vec<T>>, SyntaxError> {
        parse::parse_list(bytes)
    }

    /// The same value, which borrows nothing.
    #[cfg(feature = "cli")]
    pub fn into_owned(self) -> Json<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        match self {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(value),
            Json::Whole(number) => Json::Whole(number),
            Json::Fraction(number) => Json::Fraction(number),
            Json::Seconds(nanoseconds) => Json::Seconds(nanoseconds),
            Json::Text(text) => Json::Text(own(text)),
            Json::List(items) => Json::List(items.into_iter().map(Json::into_owned).collect()),
            Json::Texts(texts) => Json::List(texts.iter().map(|text| Json::Text(Cow::Owned(text.as_str().into()))).collect()),
            Json::Sessions(sessions) => Json::List(sessions.iter().map(|session| Json::from(session).into_owned()).collect()),
            Json::Object(fields) => {
                Json::Object(fields.into_iter().map(|(key, value)| (own(key), value.into_owned())).collect())
            }
        }
    }

    /// An object without the fields that are [`Null`](Json::Null).
    pub fn object(fields: Vec<(&'static str, Json<'a>)>) -> Json<'a> {
        let mut object = Vec::new();
        for (key, value) in fields {
            if !matches!(value, Json::Null) {
                object.push((Cow::Borrowed(key), value));
            }
        }
        Json::Object(object)
    }

    /// The field of an object; of anything else, [`Null`](Json::Null).
    pub fn get(&self, name: &str) -> &Json<'a> {
        match self {
            Json::Object(fields) => fields.iter().find(|(key, _)| key == name).map_or(&Json::Null, |(_, value)| value),
            _ => &Json::Null,
        }
    }

    /// The text; of anything else, the empty one.
    pub fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }

    /// The whole number; of anything else, 0.
    pub fn whole(&self) -> i64 {
        match self {
            Json::Whole(number) => *number,
            _ => 0,
        }
    }

    /// The elements of a list; of anything else, none.
    pub fn items(&self) -> &[Json<'a>] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }

    /// The texts in a list.
    pub fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for item in self.items() {
            texts.push(item.text().to_owned());
        }
        texts
    }
}

/// What an object of JSON can become.
pub trait FromFields: Default {
    /// Takes a field. Of two with one name the later counts.
    fn set(&mut self, name: &str, value: Json);

    /// Reads an object that is written as Consul writes it, as [`set`](FromFields::set) would: whatever is not is `None`, and goes
    /// there.
    fn read_plain(_: &mut Plain) -> Option<Self> {
        None
    }
}

impl<'a> From<&'a str> for Json<'a> {
    fn from(text: &'a str) -> Json<'a> {
        Json::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a Text> for Json<'a> {
    fn from(text: &'a Text) -> Json<'a> {
        Json::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<Option<&'a str>> for Json<'a> {
    fn from(text: Option<&'a str>) -> Json<'a> {
        text.map_or(Json::Null, Json::from)
    }
}

impl<'a, T> FromIterator<T> for Json<'a>
where
    Json<'a>: From<T>,
{
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Json<'a> {
        let mut list = Vec::new();
        for item in items {
            list.push(Json::from(item));
        }
        Json::List(list)
    }
}

impl fmt::Display for Json<'_> {
    /// Writes JSON: in one line, or with `{:#}` indented by two spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, f.alternate().then_some(0));
        f.write_str(&text)
    }
}

impl Json<'_> {
    /// JSON in one line.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, None);
        text
    }

    fn write(&self, to: &mut String, indent: Option<usize>) {
        match self {
            Json::Null => to.push_str("null"),
            Json::Bool(true) => to.push_str("true"),
            Json::Bool(false) => to.push_str("false"),
            Json::Whole(number) => crate::write_whole(to, *number),
            Json::Fraction(number) => to.push_str(&fraction(*number)),
            Json::Seconds(nanoseconds) => to.push_str(&crate::duration::seconds(*nanoseconds)),
            Json::Text(text) => write_text(to, text),
            Json::List(items) => {
                let mut block = Block::open(to, indent, '[');
                for item in items {
                    block.item(to);
                    item.write(to, block.inner);
                }
                block.close(to, ']');
            }
            Json::Texts(texts) => {
                let mut block = Block::open(to, indent, '[');
                for text in *texts {
                    block.item(to);
                    write_text(to, text);
                }
                block.close(to, ']');
            }
            Json::Sessions(sessions) => {
                let mut block = Block::open(to, indent, '[');
                for session in *sessions {
                    // By an eighth, not to twice as much as is needed: there may be many.
                    if to.capacity() - to.len() < 1024 {
                        to.reserve_exact(1024 + to.len() / 8);
                    }
                    block.item(to);
                    let mut fields = Block::open(to, block.inner, '{');
                    session.fields(&mut |name, value| fields.field(to, name, &value));
                    fields.close(to, '}');
                }
                block.close(to, ']');
            }
            Json::Object(fields) => {
                let mut block = Block::open(to, indent, '{');
                for (name, value) in fields {
                    block.field(to, name, value);
                }
                block.close(to, '}');
            }
        }
    }
}

/// A list or an object that is being written.
struct Block {
    indent: Option<usize>,
    /// That of its items.
    inner: Option<usize>,
    empty: bool,
}

impl Block {
    fn open(to: &mut String, indent: Option<usize>, sign: char) -> Block {
        to.push(sign);
        Block { indent, inner: indent.map(|indent| indent + 1), empty: true }
    }

    /// What stands before an item.
    fn item(&mut self, to: &mut String) {
        if !self.empty {
            to.push(',');
        }
        self.empty = false;
        line(to, self.inner);
    }

    fn field(&mut self, to: &mut String, name: &str, value: &Json) {
        self.item(to);
        write_text(to, name);
        to.push_str(if self.inner.is_some() { ": " } else { ":" });
        value.write(to, self.inner);
    }

    fn close(self, to: &mut String, sign: char) {
        if !self.empty {
            line(to, self.indent);
        }
        to.push(sign);
    }
}

fn line(to: &mut String, indent: Option<usize>) {
    if let Some(indent) = indent {
        to.push('\n');
        for _ in 0..indent {
            to.push_str("  ");
        }
    }
}

/// The command line writes what it was given.
#[cfg(feature = "cli")]
fn fraction(number: f64) -> String {
    number.to_string()
}

/// The component only shows the fractions that it refuses: to the nanosecond, since the printing of floats weighs 18 kB.
#[cfg(not(feature = "cli"))]
fn fraction(number: f64) -> String {
    match crate::duration::from_seconds(number) {
        Some(nanoseconds) => crate::duration::seconds(nanoseconds),
        None => "(no such number)".into(),
    }
}

fn write_text(to: &mut String, text: &str) {
    to.push('"');
    let mut plain = text;
    while let Some(at) = plain.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
        let (before, rest) = plain.split_at_checked(at).unwrap_or_default();
        let (special, rest) = rest.split_at_checked(1).unwrap_or_default();
        to.push_str(before);
        to.push('\\');
        match special {
            "\u{8}" => to.push('b'),
            "\u{c}" => to.push('f'),
            "\n" => to.push('n'),
            "\r" => to.push('r'),
            "\t" => to.push('t'),
            "\"" | "\\" => to.push_str(special),
            control => {
                let code = control.bytes().next().unwrap_or(0);
                to.push_str(if code < 0x10 { "u000" } else { "u001" });
                to.extend(char::from_digit(u32::from(code) & 15, 16));
            }
        }
        plain = rest;
    }
    to.push_str(plain);
    to.push('"');
}

/// Numbers below a limit, by chance but the same in every run: for texts that tests put together.
#[cfg(test)]
pub(crate) fn chance() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |limit| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_is_read() {
        let json = Json::parse(br#"{"a":[null,true,1.5,-3,18446744073709551615,"x","\u00e4"],"b":{"c":"d"}}"#).unwrap();
        assert_eq!(
            json.get("a"),
            &Json::List(vec![
                Json::Null,
                Json::Bool(true),
                Json::Fraction(1.5),
                Json::Whole(-3),
                Json::Fraction(u64::MAX as f64),
                Json::from("x"),
                Json::from("ä")
            ])
        );
        assert_eq!(json.get("b").get("c").text(), "d");
        assert_eq!(json.get("b").get("no").get("no"), &Json::Null);
        assert_eq!((json.get("b").whole(), json.get("b").items().len(), json.get("a").text()), (0, 0, ""));
    }

    #[test]
    fn broken_json_is_an_error() {
        for text in ["", "{", "[1", "<html>", "nul", "\"x", "{\"a\"}", "[] []", "{1:2}"] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        // Deeper than any answer: an error, not the end of the stack.
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn lists_are_read_one_by_one() {
        #[derive(Debug, Default, PartialEq)]
        struct Names(Vec<String>);
        impl FromFields for Names {
            fn set(&mut self, name: &str, value: Json) {
                self.0.push(format!("{name}={value}"));
            }
        }
        let names = |names: &[&str]| Names(names.iter().map(|&name| name.into()).collect());
        let list = |text: &str| Json::parse_list::<Names>(text.as_bytes());
        assert_eq!(
            list(" [{\"a\":1,\"b\":[2]}, 3, {}]").unwrap(),
            Some(vec![names(&["a=1", "b=[2]"]), names(&[]), names(&[])])
        );
        for count in [0, 1, 2, 7, 8, 9, 1000] {
            let text = format!("[{}]", vec!["{\"a\":1}"; count].join(","));
            assert_eq!(list(&text).unwrap().unwrap().len(), count);
        }
        assert_eq!(list("{\"a\": [1]}").unwrap(), None);
        assert!(list("[{}, {\"a\"").is_err());
    }

    #[test]
    fn writing() {
        let json = Json::object(vec![
            ("text", "a\"\u{1}\u{e4}".into()),
            ("missing", Json::Null),
            ("delay", Json::Seconds(1_500_000_000)),
            ("list", ["x", "y"].into_iter().collect()),
            ("none", Json::List(Vec::new())),
        ]);
        assert_eq!(json.to_string(), r#"{"text":"a\"\u0001ä","delay":1.5,"list":["x","y"],"none":[]}"#);
        assert_eq!(
            format!("{json:#}"),
            "{\n  \"text\": \"a\\\"\\u0001ä\",\n  \"delay\": 1.5,\n  \"list\": [\n    \"x\",\n    \"y\"\n  ],\n  \"none\": []\n}"
        );
    }
}
