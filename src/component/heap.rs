//! Memory: handed out piece after piece, and taken back all at once when the call is over.
//!
//! When it is over the host says: once it has read an export's answer, it calls the function that stands beside the export.
//! Nothing is kept from one call to the next, so that all memory is free then, what the host wrote and an error on the way left
//! too. No piece is freed by itself: what would do that, for each type anew, is 10 kB.

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::Cell;
use core::mem;
use core::ptr;

const PAGE: usize = 64 * 1024;

unsafe extern "C" {
    /// Where the linker's part of the memory ends: the stack and the statics.
    static __heap_base: u8;
}

#[global_allocator]
static HEAP: Heap = Heap { end: Cell::new((&raw const __heap_base).cast_mut()) };

struct Heap {
    /// Where the next piece may begin.
    end: Cell<*mut u8>,
}

// Safety: a component has one thread.
unsafe impl Sync for Heap {}

impl Heap {
    /// The piece of `size` bytes that begins here, as the last one; null if the host gives no more memory.
    fn last(&self, start: *mut u8, size: usize) -> *mut u8 {
        let Some(end) = start.addr().checked_add(size) else { return ptr::null_mut() };
        let missing = end.div_ceil(PAGE).saturating_sub(memory_size(0));
        if missing > 0 && memory_grow(0, missing) == usize::MAX {
            return ptr::null_mut();
        }
        self.end.set(start.with_addr(end));
        start
    }
}

// Safety: pieces begin behind the end of those before, and only `clear` and `passing` go back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (end, most) = (self.end.get(), layout.align() - 1);
        match end.addr().checked_add(most) {
            Some(address) => self.last(end.with_addr(address & !most), layout.size()),
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    /// The last piece grows and shrinks where it is: so the body of an answer, however long, is never copied.
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if start.wrapping_add(layout.size()) == self.end.get() {
            return self.last(start, size);
        }
        if size <= layout.size() {
            return start;
        }
        // Safety: the caller's, as the alignment is that of a layout.
        let place = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !place.is_null() {
            // Safety: both are pieces of at least this size.
            unsafe { ptr::copy_nonoverlapping(start, place, layout.size()) };
        }
        place
    }
}

/// Takes all memory back.
///
/// # Safety
///
/// Nothing in it is used any more.
#[cfg(not(feature = "command"))]
pub unsafe fn clear() {
    HEAP.end.set((&raw const __heap_base).cast_mut());
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
///
/// # Safety
///
/// The piece is a whole one of the heap, and nobody else's.
pub unsafe fn append(bytes: &mut Vec<u8>, piece: &[u8]) {
    let length = bytes.len();
    let start = if length == 0 { piece.as_ptr().cast_mut() } else { bytes.as_mut_ptr() };
    if length == bytes.capacity() && start.wrapping_add(length).cast_const() == piece.as_ptr() {
        let length = length + piece.len();
        // Safety: one piece, or two without a gap, and nobody else's.
        mem::forget(mem::replace(bytes, unsafe { Vec::from_raw_parts(start, length, length) }));
    } else {
        bytes.extend_from_slice(piece);
    }
}

/// Where a host writes the texts and lists that it hands over.
///
/// # Safety
///
/// The host's: what it asks for again is what it got.
#[cfg(not(feature = "command"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(start: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    // Safety: the canonical ABI aligns by powers of two, and gives no start where there is no piece yet.
    let place = unsafe {
        let layout = |size| Layout::from_size_align_unchecked(size, align);
        if start.is_null() { HEAP.alloc(layout(size)) } else { HEAP.realloc(start, layout(old_size), size) }
    };
    if place.is_null() {
        core::arch::wasm32::unreachable();
    }
    place
}
