//! The canonical ABI as Rust types: values that host and component hand each other as they lie in memory.
//!
//! A record of WIT is laid out as a C struct and a variant as a byte that counts the cases with a C union behind it, which is what
//! `repr(C)` and `repr(C, u8)` say. So nothing is read or written field by field, in each export anew, as `wit-bindgen` does for
//! types of its own.
//!
//! Memory goes over with the value, both ways behind a [`Box`], and is taken back with that of the whole call (see `heap`). So
//! nothing here is freed, and a text or list is copied by copying where it is.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::ptr;

/// `option<T>`.
#[expect(missing_docs, reason = "as `Option`")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, u8)]
pub enum Maybe<T> {
    #[default]
    None,
    Some(T),
}

impl<T> Maybe<T> {
    /// As of `Option`.
    pub fn as_ref(&self) -> Option<&T> {
        match self {
            Maybe::None => None,
            Maybe::Some(value) => Some(value),
        }
    }
}

impl<T, U: From<T>> From<Option<T>> for Maybe<U> {
    fn from(value: Option<T>) -> Maybe<U> {
        match value {
            None => Maybe::None,
            Some(value) => Maybe::Some(value.into()),
        }
    }
}

/// `result<T, E>`.
#[cfg_attr(feature = "command", expect(dead_code, reason = "the command only takes them"))]
#[repr(C, u8)]
pub enum Answer<T, E> {
    Ok(T),
    Err(E),
}

impl<T, E> Answer<T, E> {
    /// As of `Result`.
    pub fn ok(self) -> Option<T> {
        match self {
            Answer::Ok(value) => Some(value),
            Answer::Err(_) => None,
        }
    }
}

/// `list<T>`: where it starts, and how many it has. Never changed, and there until the call is over.
#[repr(C)]
pub struct List<T> {
    start: *const T,
    length: usize,
}

#[cfg(not(feature = "command"))]
impl<T> List<T> {
    /// # Safety
    ///
    /// The parts are those of a `list<T>` of the host's.
    pub unsafe fn from_parts(start: *const T, length: usize) -> List<T> {
        List { start, length }
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // An empty list of a host starts anywhere, at null too.
        if self.length == 0 {
            return &[];
        }
        // Safety: either a slice was taken apart, or the host has written a list of this type.
        unsafe { core::slice::from_raw_parts(self.start, self.length) }
    }
}

impl<T> From<&'static [T]> for List<T> {
    fn from(items: &'static [T]) -> List<T> {
        List { start: items.as_ptr(), length: items.len() }
    }
}

impl<T, U: From<T> + 'static> From<Vec<T>> for List<U> {
    fn from(items: Vec<T>) -> List<U> {
        let items: Vec<U> = items.into_iter().map(U::from).collect();
        List::from(&*items.leak())
    }
}

impl<T: 'static> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> List<T> {
        List::from(&*Vec::from_iter(items).leak())
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> List<T> {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T: 'static> Default for List<T> {
    fn default() -> List<T> {
        List::from(&[][..])
    }
}

impl<T: PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &List<T>) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for List<T> {}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// `string`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Text(List<u8>);

impl Text {
    /// # Safety
    ///
    /// As of [`List::from_parts`], of a `string`.
    #[cfg(not(feature = "command"))]
    pub unsafe fn from_parts(start: *const u8, length: usize) -> Text {
        // Safety: the caller's.
        Text(unsafe { List::from_parts(start, length) })
    }

    /// A text, wherever it stands.
    ///
    /// # Safety
    ///
    /// It stays there, unchanged, until the call is over, as the bytes of an answer do.
    pub unsafe fn kept(text: Cow<str>) -> Text {
        match text {
            Cow::Owned(text) => text.into(),
            // Safety: the caller's.
            Cow::Borrowed(text) => Text::from(unsafe { &*ptr::from_ref(text) }),
        }
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        self
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Safety: it was a `str`, or the host has checked it: a component's `string` is UTF-8.
        unsafe { core::str::from_utf8_unchecked(&self.0) }
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Text {
        Text(text.as_bytes().into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::from(&*text.leak())
    }
}
