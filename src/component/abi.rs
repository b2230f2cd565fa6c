//! The canonical ABI as Rust types: values that host and component hand each other as they lie in memory.
//!
//! A record of WIT is laid out as a C struct and a variant as a byte that counts the cases with a C union behind it, which is what
//! `repr(C)` and `repr(C, u8)` say. So nothing is read or written field by field, in each export anew, as `wit-bindgen` does for
//! types of its own.
//!
//! Memory goes over with the value, both ways behind a [`Box`], and is taken back with that of the whole call (see `heap`). So
//! nothing here is freed.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

/// `option<T>`.
#[repr(C, u8)]
pub enum Maybe<T> {
    None,
    Some(T),
}

impl<T> Maybe<T> {
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

/// `list<T>`: the parts of a `Box<[T]>`, but that an empty list of a host starts anywhere, at null too.
#[repr(C)]
pub struct List<T> {
    start: *mut T,
    length: usize,
}

#[cfg(not(feature = "command"))]
impl<T> List<T> {
    /// # Safety
    ///
    /// The parts are those that the host made, with `cabi_realloc`, of a `list<T>` that is nobody else's.
    pub unsafe fn from_parts(start: *mut T, length: usize) -> List<T> {
        List { start, length }
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        if self.length == 0 {
            return &[];
        }
        // Safety: either a `Box<[T]>` was taken apart, or the host has written a list of this type.
        unsafe { core::slice::from_raw_parts(self.start, self.length) }
    }
}

impl<T> From<Box<[T]>> for List<T> {
    fn from(items: Box<[T]>) -> List<T> {
        let items = Box::leak(items);
        List { start: items.as_mut_ptr(), length: items.len() }
    }
}

impl<T, U: From<T>> From<Vec<T>> for List<U> {
    fn from(items: Vec<T>) -> List<U> {
        let mut list = Box::new_uninit_slice(items.len());
        for (place, item) in list.iter_mut().zip(items) {
            place.write(U::from(item));
        }
        // Safety: there are as many places as items.
        unsafe { list.assume_init() }.into()
    }
}

/// `string`.
#[repr(transparent)]
pub struct Text(List<u8>);

#[cfg(not(feature = "command"))]
impl Text {
    /// # Safety
    ///
    /// As of [`List::from_parts`], of a `string`.
    pub unsafe fn from_parts(start: *mut u8, length: usize) -> Text {
        // Safety: the caller's.
        Text(unsafe { List::from_parts(start, length) })
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Safety: it was a `String`, or the host has checked it: a component's `string` is UTF-8.
        unsafe { core::str::from_utf8_unchecked(&self.0) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(text.into_boxed_str().into_boxed_bytes().into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        text.to_owned().into()
    }
}
