//! Memory: handed out piece after piece, and taken back all at once when the call is over.
//!
//! When it is over the host says: once it has read an export's answer, it calls the function that stands beside the export. Nothing
//! is kept from one call to the next, so that all memory is free then, what the host wrote and an error on the way left too. No
//! piece is freed by itself: what would do that, for each type anew, is 10 kB.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::Cell;
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
    /// The piece that begins here, as the last one; null if the host gives no more memory.
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

// Safety: pieces begin behind the end of those before, and only `clear` and `release` go back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.last(self.end.get().map_addr(|end| end.next_multiple_of(layout.align())), layout.size())
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
        let place = self.last(self.end.get().map_addr(|end| end.next_multiple_of(layout.align())), size);
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
