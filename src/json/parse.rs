//! Reading JSON, strictly as RFC 8259 has it.
//!
//! By hand, for this one type: what it takes and refuses, the values, and what it says of a fault and where are those of
//! `serde_json`, which is three times as large. The tests compare the two.

use super::plain::spaced;
use super::{FromFields, Json, Plain};
use crate::decimal;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::from_utf8_unchecked;

/// How deep lists and objects may stand in each other: more is no answer of anybody's, and would be the end of the stack.
const DEPTH: u32 = 127;

/// Why a text is no JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    reason: &'static str,
    line: usize,
    column: usize,
}

impl SyntaxError {
    /// What is wrong, and where.
    pub fn message(&self) -> String {
        text![self.reason, " at line ", decimal(self.line), " column ", decimal(self.column)]
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl core::error::Error for SyntaxError {}

/// Parses one value.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>, SyntaxError> {
    Parser::run(bytes, Parser::value)
}

/// Parses a list of objects; `None` for another value.
pub fn parse_list<T: FromFields>(bytes: &[u8]) -> Result<Option<Vec<T>>, SyntaxError> {
    let mut items = Vec::new();
    Parser::run(bytes, |parser| match parser.ahead() {
        Some(b'[') => {
            parser.list(&mut |parser| {
                let item = match parser.plain() {
                    Some(item) => item,
                    None => parser.item()?,
                };
                // Room for all at once, as far as it can be known, since to grow is to copy. In one step no more than the text
                // takes.
                if items.len() == items.capacity() {
                    items.reserve_exact(parser.to_come(items.len()).min(bytes.len() / size_of::<T>()) + 1);
                }
                items.push(item);
                Ok(())
            })?;
            Ok(true)
        }
        _ => parser.value().map(|_| false),
    })
    .map(|is_list| is_list.then_some(items))
}

/// What is wrong, and how many bytes stand before it and with it.
struct Fault {
    reason: &'static str,
    at: usize,
}

const END_OF_VALUE: &str = "EOF while parsing a value";
const END_OF_LIST: &str = "EOF while parsing a list";
const END_OF_OBJECT: &str = "EOF while parsing an object";
const END_OF_TEXT: &str = "EOF while parsing a string";
const INVALID_NUMBER: &str = "invalid number";
const OUT_OF_RANGE: &str = "number out of range";
const TRAILING_COMMA: &str = "trailing comma";
const LONE_SURROGATE: &str = "lone leading surrogate in hex escape";

struct Parser<'a> {
    bytes: &'a [u8],
    /// How many of them are read.
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn run<T>(bytes: &'a [u8], read: impl FnOnce(&mut Parser<'a>) -> Result<T, Fault>) -> Result<T, SyntaxError> {
        let mut parser = Parser { bytes, at: 0, depth: 0 };
        let result = read(&mut parser).and_then(|value| match parser.ahead() {
            None => Ok(value),
            Some(_) => Err(parser.fault_ahead("trailing characters")),
        });
        result.map_err(|Fault { reason, at }| {
            let before = bytes.get(..at).unwrap_or(bytes);
            let start_of_line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            SyntaxError { reason, line, column: before.len() - start_of_line }
        })
    }

    /// A fault of the byte that was read last.
    fn fault(&self, reason: &'static str) -> Fault {
        Fault { reason, at: self.at }
    }

    /// A fault of the byte that comes next.
    fn fault_ahead(&self, reason: &'static str) -> Fault {
        Fault { reason, at: self.at + 1 }
    }

    // The three that are met at every byte are told to be inlined: at this optimisation they would be calls.
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Takes the byte that comes next, if it is this one.
    #[inline(always)]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// What comes next after white space. Consul writes none.
    #[inline(always)]
    fn ahead(&mut self) -> Option<u8> {
        match self.peek()? {
            b'!'.. => self.peek(),
            _ => self.ahead_of_space(),
        }
    }

    fn ahead_of_space(&mut self) -> Option<u8> {
        self.at = self.bytes.len() - spaced(self.bytes.get(self.at..)?).len();
        self.peek()
    }

    fn value(&mut self) -> Result<Json<'a>, Fault> {
        let Some(first) = self.ahead() else { return Err(self.fault_ahead(END_OF_VALUE)) };
        match first {
            b'"' => Ok(Json::Text(self.text()?)),
            b'0'..=b'9' => self.number(false),
            b'-' => {
                self.at += 1;
                self.number(true)
            }
            b'[' => {
                let mut items = Vec::new();
                self.list(&mut |parser| {
                    // Most have one element, and room is made for four if nothing is said.
                    if items.is_empty() {
                        items.reserve_exact(1);
                    }
                    items.push(parser.value()?);
                    Ok(())
                })?;
                Ok(Json::List(items))
            }
            b'{' => {
                let mut fields = Vec::new();
                self.object(&mut |name, value| fields.push((name, value)))?;
                Ok(Json::Object(fields))
            }
            b'n' => self.word(b"null", Json::Null),
            b't' => self.word(b"true", Json::Bool(true)),
            b'f' => self.word(b"false", Json::Bool(false)),
            _ => Err(self.fault_ahead("expected value")),
        }
    }

    fn word(&mut self, word: &[u8], value: Json<'a>) -> Result<Json<'a>, Fault> {
        for &expected in word {
            match self.next() {
                None => return Err(self.fault(END_OF_VALUE)),
                Some(byte) if byte != expected => return Err(self.fault("expected ident")),
                Some(_) => {}
            }
        }
        Ok(value)
    }

    /// Goes into the list or object that comes next.
    fn descend(&mut self) -> Result<(), Fault> {
        if self.depth == DEPTH {
            return Err(self.fault_ahead("recursion limit exceeded"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// A list, whose bracket comes next. Its elements are read by the function.
    fn list(&mut self, read: &mut dyn FnMut(&mut Parser<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
        self.descend()?;
        let mut first = true;
        loop {
            match self.ahead() {
                None => return Err(self.fault_ahead(END_OF_LIST)),
                Some(b']') => break,
                Some(_) if first => {}
                Some(b',') => {
                    self.at += 1;
                    match self.ahead() {
                        None => return Err(self.fault_ahead(END_OF_VALUE)),
                        Some(b']') => return Err(self.fault_ahead(TRAILING_COMMA)),
                        Some(_) => {}
                    }
                }
                Some(_) => return Err(self.fault_ahead("expected `,` or `]`")),
            }
            first = false;
            read(self)?;
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// How many elements there will be behind this one, if they are as long as those before.
    fn to_come(&self, before: usize) -> usize {
        let rest = self.bytes.len().saturating_sub(self.at);
        let count = self.at.checked_div(before + 1).and_then(|each| rest.checked_div(each)).unwrap_or(0);
        count + count / 16
    }

    /// An object, whose brace comes next. Its fields go to the function.
    fn object(&mut self, take: &mut dyn FnMut(Cow<'a, str>, Json<'a>)) -> Result<(), Fault> {
        self.descend()?;
        let mut first = true;
        loop {
            match self.ahead() {
                None => return Err(self.fault_ahead(END_OF_OBJECT)),
                Some(b'}') => break,
                Some(_) if first => {}
                Some(b',') => {
                    self.at += 1;
                    match self.ahead() {
                        None => return Err(self.fault_ahead(END_OF_VALUE)),
                        Some(b'}') => return Err(self.fault_ahead(TRAILING_COMMA)),
                        Some(_) => {}
                    }
                }
                Some(_) => return Err(self.fault_ahead("expected `,` or `}`")),
            }
            first = false;
            if self.peek() != Some(b'"') {
                return Err(self.fault_ahead("key must be a string"));
            }
            let key = self.text()?;
            match self.ahead() {
                None => return Err(self.fault_ahead(END_OF_OBJECT)),
                Some(b':') => self.at += 1,
                Some(_) => return Err(self.fault_ahead("expected `:`")),
            }
            take(key, self.value()?);
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// An object that is written as Consul writes it.
    fn plain<T: FromFields>(&mut self) -> Option<T> {
        let mut plain = Plain::new(self.bytes, self.at);
        let item = T::read_plain(&mut plain)?;
        self.at = self.bytes.len() - plain.left();
        Some(item)
    }

    /// An object, or any other value, which has no fields.
    fn item<T: FromFields>(&mut self) -> Result<T, Fault> {
        let mut item = T::default();
        match self.ahead() {
            Some(b'{') => self.object(&mut |name, value| item.set(&name, value))?,
            _ => drop(self.value()?),
        }
        Ok(item)
    }

    /// A text, whose quote comes next. Borrowed unless it has escapes.
    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.at += 1;
        let mut unescaped = Vec::new();
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let (length, ascii) = plain_length(rest);
            let plain = rest.get(..length).unwrap_or_default();
            self.at += plain.len();
            match self.next() {
                None => return Err(self.fault(END_OF_TEXT)),
                // Safety: ASCII is UTF-8.
                Some(b'"') if ascii && unescaped.is_empty() => return Ok(Cow::Borrowed(unsafe { from_utf8_unchecked(plain) })),
                Some(b'"') if unescaped.is_empty() => {
                    return core::str::from_utf8(plain).map(Cow::Borrowed).map_err(|error| self.no_utf8(plain.len(), error));
                }
                Some(b'"') => {
                    unescaped.extend_from_slice(plain);
                    let length = unescaped.len();
                    let text = String::from_utf8(unescaped);
                    return text.map(Cow::Owned).map_err(|error| self.no_utf8(length, error.utf8_error()));
                }
                Some(b'\\') => {
                    unescaped.extend_from_slice(plain);
                    let c = self.escape()?;
                    unescaped.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(_) => return Err(self.fault("control character (\\u0000-\\u001F) found while parsing a string")),
            }
        }
    }

    /// The fault of a text of this length, whose closing quote was read last.
    fn no_utf8(&self, length: usize, error: core::str::Utf8Error) -> Fault {
        Fault { reason: "invalid unicode code point", at: self.at.saturating_sub(length - error.valid_up_to()) }
    }

    /// The character that stands behind a backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        Ok(match self.next() {
            None => return Err(self.fault(END_OF_TEXT)),
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err(self.fault("invalid escape")),
        })
    }

    /// What `\u` and four digits mean, with a second such pair where the first is half a character.
    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let leading = self.hex()?;
        if let Some(c) = char::from_u32(leading) {
            return Ok(c);
        }
        if leading >= 0xdc00 {
            return Err(self.fault(LONE_SURROGATE));
        }
        for expected in [b'\\', b'u'] {
            match self.next() {
                None => return Err(self.fault(END_OF_TEXT)),
                Some(byte) if byte != expected => return Err(self.fault("unexpected end of hex escape")),
                Some(_) => {}
            }
        }
        let trailing = self.hex()?;
        match trailing {
            0xdc00..=0xdfff => {
                let code = 0x1_0000 + ((leading - 0xd800) << 10) + (trailing - 0xdc00);
                char::from_u32(code).ok_or_else(|| self.fault(LONE_SURROGATE))
            }
            _ => Err(self.fault(LONE_SURROGATE)),
        }
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let Some(digits) = self.bytes.get(self.at..self.at + 4) else {
            self.at = self.bytes.len();
            return Err(self.fault(END_OF_TEXT));
        };
        self.at += 4;
        let number = digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?));
        number.ok_or_else(|| self.fault("invalid escape"))
    }

    /// A number, whose sign was read.
    fn number(&mut self, negative: bool) -> Result<Json<'a>, Fault> {
        let mut digits = match self.next() {
            None => return Err(self.fault(END_OF_VALUE)),
            Some(b'0') if matches!(self.peek(), Some(b'0'..=b'9')) => return Err(self.fault_ahead(INVALID_NUMBER)),
            Some(digit @ b'0'..=b'9') => u64::from(digit - b'0'),
            Some(_) => return Err(self.fault(INVALID_NUMBER)),
        };
        // Digits that do not fit only count as zeros, and behind the point not even that.
        let (mut exponent, mut fits) = (0_i32, true);
        while let Some(digit) = self.digit() {
            fits = fits && append(&mut digits, digit);
            exponent += i32::from(!fits);
        }
        let mut whole = fits;
        if self.take(b'.') {
            whole = false;
            fits = true;
            let begin = self.at;
            while let Some(digit) = self.digit() {
                fits = fits && append(&mut digits, digit);
                exponent -= i32::from(fits);
            }
            if self.at == begin {
                return Err(self.fault_ahead(if self.peek().is_none() { END_OF_VALUE } else { INVALID_NUMBER }));
            }
        }
        if self.take(b'e') || self.take(b'E') {
            whole = false;
            match self.exponent(digits)? {
                Some(more) => exponent = exponent.saturating_add(more),
                None => digits = 0,
            }
        }
        if whole {
            // Of the smallest number only the positive counterpart does not fit.
            let number = if negative { 0_i64.checked_sub_unsigned(digits) } else { i64::try_from(digits).ok() };
            if let Some(number) = number.filter(|number| !negative || *number < 0) {
                return Ok(Json::Whole(number));
            }
        }
        let size = scale(digits, exponent).ok_or_else(|| self.fault(OUT_OF_RANGE))?;
        Ok(Json::Fraction(if negative { -size } else { size }))
    }

    /// Takes the digit that comes next, if it is one.
    #[inline(always)]
    fn digit(&mut self) -> Option<u8> {
        let digit = self.peek()?.checked_sub(b'0').filter(|digit| *digit < 10)?;
        self.at += 1;
        Some(digit)
    }

    /// The exponent, whose `e` was read; `None` for one so small that the number is 0.
    fn exponent(&mut self, digits: u64) -> Result<Option<i32>, Fault> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let mut exponent = match self.next() {
            None => return Err(self.fault(END_OF_VALUE)),
            Some(digit @ b'0'..=b'9') => i32::from(digit - b'0'),
            Some(_) => return Err(self.fault(INVALID_NUMBER)),
        };
        while let Some(digit) = self.digit() {
            exponent = match exponent.checked_mul(10).and_then(|exponent| exponent.checked_add(digit.into())) {
                Some(exponent) => exponent,
                None if digits != 0 && !negative => return Err(self.fault(OUT_OF_RANGE)),
                None => {
                    while self.digit().is_some() {}
                    return Ok(None);
                }
            };
        }
        Ok(Some(if negative { -exponent } else { exponent }))
    }
}

/// How many bytes stand before a quote, a backslash or a control character, and whether they are known to be ASCII. Eight at a
/// time, as texts are most of an answer.
fn plain_length(bytes: &[u8]) -> (usize, bool) {
    const ONES: u64 = u64::MAX / 255;
    // The top bit of each byte that is 0. A borrow can only mark a byte too many behind one that is marked by right.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, _) = bytes.as_chunks::<8>();
    let mut seen = 0;
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        seen |= word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (control | zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c))) & (ONES << 7);
        if special != 0 {
            return (n * 8 + special.trailing_zeros() as usize / 8, seen & (ONES << 7) == 0);
        }
    }
    let rest = bytes.get(words.len() * 8..).unwrap_or_default();
    let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).unwrap_or(rest.len());
    (words.len() * 8 + length, false)
}

/// Appends a digit to a number, if it fits.
#[inline(always)]
fn append(number: &mut u64, digit: u8) -> bool {
    // Not `checked_mul`, which multiplies to 128 bits.
    let fits = *number < u64::MAX / 10 || *number == u64::MAX / 10 && u64::from(digit) <= u64::MAX % 10;
    if fits {
        *number = *number * 10 + u64::from(digit);
    }
    fits
}

/// The number times a power of ten. `None` if it does not fit.
fn scale(digits: u64, mut exponent: i32) -> Option<f64> {
    const MOST: i32 = 308;
    let mut number = digits as f64;
    while exponent < -MOST && number != 0.0 {
        number /= power_of_ten(MOST as u32);
        exponent += MOST;
    }
    if number != 0.0 {
        let power = power_of_ten(exponent.unsigned_abs().min(MOST as u32 + 1));
        number = if exponent < 0 { number / power } else { number * power };
    }
    number.is_finite().then_some(number)
}

/// The nearest to this power of ten, up to 308. A table of them would be 2.5 kB.
fn power_of_ten(mut exponent: u32) -> f64 {
    let (mut power, mut square) = ((1.0, 0.0), (10.0, 0.0));
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        exponent /= 2;
    }
    power.0
}

/// Multiplies numbers that are the sum of a float and the small rest that it lacks, to twice the digits of a float (Dekker, 1971).
fn multiply(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let halves = |number: f64| {
        let shifted = number * 134_217_729.0;
        let high = shifted - (shifted - number);
        (high, number - high)
    };
    let (a_halves, b_halves) = (halves(a.0), halves(b.0));
    let product = a.0 * b.0;
    let lost = a_halves.0 * b_halves.0 - product + a_halves.0 * b_halves.1 + a_halves.1 * b_halves.0 + a_halves.1 * b_halves.1;
    let rest = lost + (a.0 * b.1 + a.1 * b.0);
    let sum = product + rest;
    (sum, rest - (sum - product))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn powers_of_ten() {
        for exponent in 0..=308 {
            let expected: f64 = format!("1e{exponent}").parse().unwrap();
            assert_eq!(power_of_ten(exponent), expected, "{exponent}");
        }
    }

    /// What `serde_json` makes of it: the value or the error's text.
    fn oracle(bytes: &[u8]) -> Result<Value, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    fn same(ours: &Json, theirs: &Value) -> bool {
        match (ours, theirs) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(a), Value::Bool(b)) => a == b,
            (Json::Whole(a), Value::Number(b)) => b.as_i64() == Some(*a),
            // By the bits, since 0 and -0 are equal.
            (Json::Fraction(a), Value::Number(b)) => b.as_i64().is_none() && b.as_f64().map(f64::to_bits) == Some(a.to_bits()),
            (Json::Text(a), Value::String(b)) => a == b,
            (Json::List(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            // The last of two fields of one name counts there, and both are kept here.
            (Json::Object(a), Value::Object(b)) => {
                a.iter().all(|(key, _)| b.contains_key(&**key))
                    && b.iter().all(|(key, b)| a.iter().rfind(|(name, _)| *name == **key).is_some_and(|(_, a)| same(a, b)))
            }
            _ => false,
        }
    }

    /// An object's fields as they come.
    #[derive(Debug, Default)]
    struct Fields(Vec<(Cow<'static, str>, Json<'static>)>);

    impl FromFields for Fields {
        fn set(&mut self, name: &str, value: Json) {
            self.0.push((name.to_owned().into(), value.into_owned()));
        }
    }

    impl Fields {
        fn same((ours, theirs): (&Fields, &Value)) -> bool {
            if theirs.is_object() { same(&Json::Object(ours.0.clone()), theirs) } else { ours.0.is_empty() }
        }
    }

    fn check(bytes: &[u8]) {
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        let theirs = oracle(bytes);
        match (parse(bytes).map_err(|error| error.to_string()), &theirs) {
            (Ok(ours), Ok(theirs)) => assert!(same(&ours, theirs), "{}: {ours:?}, not {theirs:?}", shown()),
            (ours, theirs) => assert_eq!(ours.err().as_ref(), theirs.as_ref().err(), "{}", shown()),
        }
        match (parse_list::<Fields>(bytes).map_err(|error| error.to_string()), &theirs) {
            (Ok(Some(ours)), Ok(Value::Array(theirs))) => {
                assert!(ours.len() == theirs.len() && ours.iter().zip(theirs).all(Fields::same), "{}", shown());
            }
            (Ok(ours), Ok(theirs)) => assert!(ours.is_none() && !theirs.is_array(), "{}", shown()),
            (ours, theirs) => assert_eq!(ours.err().as_ref(), theirs.as_ref().err(), "{}", shown()),
        }
        if let Ok(Json::Text(text)) = parse(bytes) {
            assert_eq!(Json::Text(text.clone()).to_string(), serde_json::to_string(&text).unwrap());
        }
    }

    const NUMBERS: [&str; 40] = [
        "0",
        "-0",
        "-",
        "00",
        "01",
        "-01",
        "1.",
        "1.e1",
        ".5",
        "1.5",
        "-1.5",
        "1e5",
        "1E+5",
        "1e-5",
        "1e",
        "1e+",
        "1ex",
        "1.5e3",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551616.3",
        "-18446744073709551616",
        "123456789012345678901234567890e-25",
        "1e308",
        "1e309",
        "17976931348623157e292",
        "1e-320",
        "1e-400",
        "5e-324",
        "0e999999999999",
        "1e999999999999",
        "1e-999999999999",
        "0.00018446744073709551615",
        "1844674407370955161.57",
        "1e00001",
        "100000000000000000000000000e-4",
    ];

    #[test]
    fn numbers() {
        for number in NUMBERS {
            for text in [number.to_owned(), format!("{number} "), format!("[{number}]"), format!("{number}\n\n,")] {
                check(text.as_bytes());
            }
        }
    }

    #[test]
    fn depth() {
        for depth in 126..130 {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                check(format!("{}1{}", open.repeat(depth), close.repeat(depth)).as_bytes());
            }
        }
    }

    /// The pieces that JSON and broken JSON are made of, put together by chance, and then cut and changed.
    #[test]
    fn generated_texts_are_read_as_serde_reads_them() {
        const PIECES: [&[u8]; 45] = [
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b"\"",
            b"\\",
            b" ",
            b"\n",
            b"\t",
            b"null",
            b"true",
            b"false",
            b"nul",
            b"truth",
            b"\"a\"",
            b"\"key\":",
            b"\"\\n\\t\\\"\\\\\\/\\b\\f\\r\"",
            b"\"\\u00e4\"",
            b"\"\\ud83d\\ude00\"",
            b"\"\\ud83d\"",
            b"\"\\ud83dx\"",
            b"\"\\ud83d\\n\"",
            b"\"\\ud83d\\u0041\"",
            b"\"\\ude00\"",
            b"\"\\u12\"",
            b"\"\\u12g4\"",
            b"\"\\x\"",
            "\"ä€😀\"".as_bytes(),
            b"\"\xff\"",
            b"\"plain text of some length \xc3\"",
            b"\"\\n\xe2\x82\"",
            b"\"\x01\"",
            b"\"long enough for a word \x1f\"",
            b"\"long enough for a word\"",
            b"0",
            b"-1",
            b"12.5",
            b"1e3",
            b"-",
            b"{\"a\":1,\"a\":2}",
            b"[1,2]",
            b"\xc3\xa4",
            b"\r\n",
        ];
        let mut below = crate::json::chance();
        let mut valid = 0;
        for _ in 0..200_000 {
            let mut text = Vec::new();
            // Mostly whole values between the right signs, else nearly nothing gets beyond its first bytes.
            let (open, close): (&[u8], &[u8]) = [(&b"["[..], &b"]"[..]), (b"{", b"}"), (b"", b"")][below(3)];
            text.extend_from_slice(open);
            for n in 0..below(5) {
                if n > 0 && below(8) > 0 {
                    text.push(b',');
                }
                if open == b"{" && below(8) > 0 {
                    text.extend_from_slice(b"\"k\": ");
                }
                text.extend_from_slice(match below(6) {
                    0 => NUMBERS[below(NUMBERS.len())].as_bytes(),
                    _ => PIECES[below(PIECES.len())],
                });
            }
            text.extend_from_slice(close);
            match below(4) {
                0 => text.truncate(below(text.len() + 1)),
                1 if !text.is_empty() => {
                    let at = below(text.len());
                    text[at] = below(256) as u8;
                }
                _ => {}
            }
            check(&text);
            valid += usize::from(parse(&text).is_ok());
        }
        assert!((20_000..180_000).contains(&valid), "{valid}");
    }
}
