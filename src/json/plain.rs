//! Reading JSON as Consul writes it: without escapes and what is rare. An agent in dev mode indents it, all others write no white space.
//!
//! A large list is nearly all of a call's work, and read by this a fraction of it. Whatever is written in another way is `None`
//! here, and read by the parser, which reads everything and alone knows what is wrong: so nothing here need be told twice.

use crate::text::{List, Text, kept};
use alloc::borrow::Cow;
use core::str::from_utf8_unchecked;

/// What is left of a text while an object in it is read.
#[derive(Clone, Copy)]
pub struct Plain<'a>(&'a [u8]);

impl<'a> Plain<'a> {
    /// What stands in a text from its `at`-th byte on.
    pub fn new(bytes: &'a [u8], at: usize) -> Plain<'a> {
        Plain(bytes.get(at..).unwrap_or_default())
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Passes over white space. To be called only where Go's encoder puts some: to look for it costs a list without it a tenth.
    #[inline(always)]
    fn skip(&mut self) {
        if let [..=b' ', ..] = self.0 {
            self.0 = spaced(self.0);
        }
    }

    /// Takes the byte that comes next.
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Takes the byte that comes next if it is this one.
    #[inline(always)]
    pub fn take(&mut self, byte: u8) -> Option<()> {
        (self.byte()? == byte).then_some(())
    }

    /// Takes `null` if it comes next.
    #[inline(always)]
    fn null(&mut self) -> bool {
        match self.0 {
            [b'n', b'u', b'l', b'l', rest @ ..] => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Takes what stands behind a value: whether another comes, or else this byte.
    #[inline(always)]
    pub fn another(&mut self, end: u8) -> Option<bool> {
        match self.byte()? {
            b',' => Some(true),
            byte if byte == end => Some(false),
            b'\n' => {
                self.skip();
                self.take(end).map(|()| false)
            }
            _ => None,
        }
    }

    /// The name of a field, and its colon.
    #[inline(always)]
    pub fn name(&mut self) -> Option<Name> {
        self.skip();
        self.take(b'"')?;
        let [first, second] = *self.0.first_chunk::<16>()?.as_chunks::<8>().0 else { return None };
        let (first, second) = (u64::from_le_bytes(first), u64::from_le_bytes(second));
        let name = match (first_zero(first ^ QUOTES), first_zero(second ^ QUOTES)) {
            (8, 8) => return None,
            (8, length) => Name { length: 8 + length, first, second: second & below(length) },
            (length, _) => Name { length, first: first & below(length), second: 0 },
        };
        self.0 = self.0.get(name.length as usize + 1..)?;
        self.take(b':')?;
        if let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
        Some(name)
    }

    /// A text of ASCII, kept where it stands.
    #[inline(always)]
    pub fn text(&mut self) -> Option<Text> {
        self.take(b'"')?;
        let (text, rest) = self.0.split_at_checked(quoted(self.0)?)?;
        self.0 = rest.get(1..)?;
        // Safety: ASCII is UTF-8, and what is read is an answer, or a copy.
        Some(unsafe { kept(Cow::Borrowed(from_utf8_unchecked(text))) })
    }

    /// A list of texts, or `null`.
    #[inline(always)]
    pub fn texts(&mut self) -> Option<List<Text>> {
        if self.null() {
            return Some(List::default());
        }
        self.take(b'[')?;
        if let [b']', rest @ ..] = self.0 {
            self.0 = rest;
            return Some(List::default());
        }
        self.skip();
        // Room for one, which most lists have: a `Vec` that is pushed to has room for four.
        let mut texts = alloc::vec![self.text()?];
        while self.another(b']')? {
            self.skip();
            texts.push(self.text()?);
        }
        Some(texts.into())
    }

    /// An empty list, or `null`.
    #[inline(always)]
    pub fn nothing(&mut self) -> Option<()> {
        if self.null() {
            return Some(());
        }
        self.take(b'[')?;
        self.take(b']')
    }

    /// A whole number of at most eighteen digits, which always fit.
    #[inline(always)]
    pub fn whole(&mut self) -> Option<i64> {
        let mut number = i64::from(digit(self.byte()?)?);
        let mut room = if number == 0 { 0 } else { 17 };
        while let Some((next, rest)) = self.0.split_first()
            && let Some(digit) = digit(*next)
        {
            if room == 0 {
                return None;
            }
            room -= 1;
            number = number * 10 + i64::from(digit);
            self.0 = rest;
        }
        Some(number)
    }
}

/// What is left behind white space. Eight spaces at a time: an agent in dev mode writes as many before each field of a session.
#[inline(never)]
pub fn spaced(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = match bytes {
            [b' ', b' ', b' ', b' ', b' ', b' ', b' ', b' ', rest @ ..] => rest,
            [b'\t' | b'\n' | b'\r' | b' ', rest @ ..] => rest,
            _ => return bytes,
        };
    }
}

#[inline(always)]
fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// The name of a field, in two words, so that it is compared at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    length: u32,
    first: u64,
    second: u64,
}

impl Name {
    /// A name of at most fifteen bytes.
    pub const fn new(name: &str) -> Name {
        let (mut words, mut rest) = (0, name.as_bytes());
        while let [others @ .., last] = rest {
            words = words << 8 | *last as u128;
            rest = others;
        }
        Name { length: name.len() as u32, first: words as u64, second: (words >> 64) as u64 }
    }
}

const ONES: u64 = u64::MAX / 255;
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;

/// The place of the first byte that is 0; 8 if none is.
#[inline(always)]
fn first_zero(word: u64) -> u32 {
    // A borrow can only mark a byte too many behind one that is marked by right.
    (word.wrapping_sub(ONES) & !word & (ONES << 7)).trailing_zeros() / 8
}

/// The bytes before this one.
#[inline(always)]
fn below(place: u32) -> u64 {
    (1_u64 << (8 * place)).wrapping_sub(1)
}

/// The top bit of each byte that is not ASCII, a control character, a quote or a backslash. A borrow can only mark a byte too many
/// behind one that is marked by right.
#[inline(always)]
fn marks(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ QUOTES).wrapping_sub(ONES);
    let backslash = (word ^ BACKSLASHES).wrapping_sub(ONES);
    (word | control | quote | backslash) & (ONES << 7)
}

/// How many bytes stand before the quote that ends a text, if the text is plain. Eight at a time; `None` also near the end.
#[inline(always)]
fn quoted(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let mut length = 0;
    for word in words {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            length += marks.trailing_zeros() as usize / 8;
            return (bytes.get(length) == Some(&b'"')).then_some(length);
        }
        length += 8;
    }
    None
}
