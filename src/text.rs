//! The core's texts and lists. Natively they are std's. In a component they lie in memory as the canonical ABI has them, and are
//! there until the call is over: nothing that is read or answered is copied, or freed.

use alloc::borrow::Cow;

#[cfg(target_arch = "wasm32")]
pub use crate::component::{List, Maybe, Text};

/// A text.
#[cfg(not(target_arch = "wasm32"))]
pub type Text = alloc::string::String;
/// A list.
#[cfg(not(target_arch = "wasm32"))]
pub type List<T> = alloc::vec::Vec<T>;
/// A value or none.
#[cfg(not(target_arch = "wasm32"))]
pub type Maybe<T> = Option<T>;

/// Does something of which nothing is used any more if it succeeds. A component takes back the memory that it was given: so a
/// call with a thousand requests needs no more of it than one.
///
/// # Safety
///
/// So it has to be.
pub unsafe fn passing<E>(work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    #[cfg(target_arch = "wasm32")]
    // Safety: the caller's.
    return unsafe { crate::component::passing(work) };
    #[cfg(not(target_arch = "wasm32"))]
    work()
}

/// A text that stands in the body of an answer.
///
/// # Safety
///
/// In a component it stays there, unchanged, until the call is over.
pub unsafe fn kept(text: Cow<str>) -> Text {
    #[cfg(target_arch = "wasm32")]
    // Safety: the caller's.
    return unsafe { Text::kept(text) };
    #[cfg(not(target_arch = "wasm32"))]
    text.into_owned()
}
