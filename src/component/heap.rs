//! Memory: handed out piece after piece, and taken back all at once when the call is over.
//!
//! When it is over the host says: once it has read an export's answer, it calls the function that stands beside the export. Nothing
//! is kept from one call to the next, so that all memory is free then, what the host wrote and an error on the way left too. No
//! piece is freed by itself: what would do that, for each type anew, is 10 kB.

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size, unreachable};
use core::cell::Cell;
use core::mem;
use core::num::NonZero;
use core::ptr::NonNull;

const PAGE: usize = 64 * 1024;

unsafe extern "C" {
    /// Where the linker's part of the memory ends: the stack and the statics.
    static __heap_base: u8;
}

#[global_allocator]
static HEAP: Heap = Heap { end: Cell::new(BEGIN) };

// Safety: what the linker places before it is not empty.
const BEGIN: NonNull<u8> = unsafe { NonNull::new_unchecked((&raw const __heap_base).cast_mut()) };

struct Heap {
    /// Where the next piece may begin.
    end: Cell<NonNull<u8>>,
}

// Safety: a component has one thread.
unsafe impl Sync for Heap {}

impl Heap {
    fn next(&self, layout: Layout) -> NonNull<u8> {
        let most = layout.align() - 1;
        // Safety: an address in the first 4 GiB, and the next of some alignment, which is no more than a page's.
        let place = self.end.get().map_addr(|end| unsafe { NonZero::new_unchecked((end.get() + most) & !most) });
        self.last(place, layout.size())
    }

    /// The piece that begins here, as the last one. There is no going on where the host gives no more memory: to say so, to nobody,
    /// std needs a kilobyte.
    fn last(&self, start: NonNull<u8>, size: usize) -> NonNull<u8> {
        let Some(end) = start.addr().checked_add(size) else { unreachable() };
        let missing = end.get().div_ceil(PAGE).saturating_sub(memory_size(0));
        if missing > 0 && memory_grow(0, missing) == usize::MAX {
            unreachable();
        }
        self.end.set(start.with_addr(end));
        start
    }
}

// Safety: pieces begin behind the end of those before, and only `clear` and `passing` go back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.next(layout).as_ptr()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    /// The last piece grows and shrinks where it is: so the body of an answer, however long, is never copied.
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Safety: it is a piece.
        let start = unsafe { NonNull::new_unchecked(start) };
        if start.addr().get() + layout.size() == self.end.get().addr().get() {
            return self.last(start, size).as_ptr();
        }
        if size <= layout.size() {
            return start.as_ptr();
        }
        // Safety: the caller's, as the alignment is that of a layout.
        let place = self.next(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
        // Safety: both are pieces of at least this size.
        unsafe { place.copy_from_nonoverlapping(start, layout.size()) };
        place.as_ptr()
    }
}

/// Takes all memory back.
///
/// # Safety
///
/// Nothing in it is used any more.
#[cfg(not(feature = "command"))]
pub unsafe fn clear() {
    HEAP.end.set(BEGIN);
}

/// Does something of which nothing is used any more if it succeeds, and takes back what it was given.
///
/// # Safety
///
/// So it has to be.
pub unsafe fn passing<E>(work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let end = HEAP.end.get();
    work()?;
    HEAP.end.set(end);
    Ok(())
}

/// Adds to what a host has written what it wrote next: where it stands behind it already, by counting it in.
pub fn append(bytes: &mut Vec<u8>, piece: Vec<u8>) {
    let (start, length) = (bytes.as_mut_ptr(), bytes.len());
    if length == bytes.capacity() && start.wrapping_add(length).cast_const() == piece.as_ptr() {
        let length = length + piece.leak().len();
        // Safety: two pieces of the heap without a gap, which are nobody else's.
        mem::forget(mem::replace(bytes, unsafe { Vec::from_raw_parts(start, length, length) }));
    } else {
        bytes.extend_from_slice(&piece);
    }
}
