//! The plugin's allocator: talc, which begins in memory that every instance has from its start.
//!
//! With talc's own source the first allocation of an instance is a `memory.grow`. A host that makes
//! an instance for each call then changes the protection of pages twice for each call, which stops
//! its other threads. docs/performance.md has the measurement.

#![allow(unsafe_code, reason = "the trait of talc's sources, and its functions, are unsafe")]

use std::alloc::Layout;
use std::arch::wasm32::memory_grow;
use std::ptr::NonNull;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

/// Chosen for its code size and for the memory that large lists take; docs/performance.md compares
/// it with others.
#[global_allocator]
static ALLOCATOR: TalcSyncCell<Pages, WasmBinning> = TalcSyncCell::new_wasm(Pages { end: None });

/// Bytes of a page of WebAssembly's memory.
const PAGE: usize = 64 << 10;
/// More than what talc keeps beside an allocation. Were it less, talc would ask again.
const MARGIN: usize = 64;

/// The source of talc's memory: what the memory has at the start behind the program's data, where
/// xtask asks the linker for more than that, and then new pages.
#[derive(Debug)]
struct Pages {
    /// The end of the heap, or of its last part. `None` before the first allocation.
    end: Option<NonNull<u8>>,
}

// SAFETY: a source must not use the allocator that it is the source of. This one allocates nothing.
unsafe impl Source for Pages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if talc.source.end.is_none() {
            talc.source.end = claim_first(talc);
            if talc.source.end.is_some() {
                return Ok(());
            }
        }
        let pages = (layout.size() + layout.align() + MARGIN).div_ceil(PAGE);
        let before = memory_grow::<0>(pages);
        if before == usize::MAX {
            return Err(());
        }
        let start: *mut u8 = std::ptr::without_provenance_mut(before * PAGE);
        talc.source.end = match talc.source.end {
            // SAFETY: `extend` requires the end of a heap of this allocator, and memory behind it that
            // nothing else uses. The pages are new.
            Some(end) if end.as_ptr() == start => Some(unsafe { talc.extend(end, start.wrapping_add(pages * PAGE)) }),
            // SAFETY: `claim` requires memory that nothing else uses. The pages are new.
            _ => unsafe { talc.claim(start, pages * PAGE) },
        };
        talc.source.end.map(drop).ok_or(())
    }
}

/// Claims the memory behind the program's data, and returns its end; `None` if it is too small for
/// talc.
#[cfg(not(target_os = "wasi"))]
fn claim_first<B: Binning>(talc: &mut Talc<Pages, B>) -> Option<NonNull<u8>> {
    unsafe extern "C" {
        /// The linker's symbol for the end of the data and the stack.
        safe static __heap_base: u8;
    }
    let base = &raw const __heap_base;
    let end = std::arch::wasm32::memory_size::<0>() * PAGE;
    // SAFETY: `claim` requires memory that nothing else uses. The linker puts nothing behind
    // `__heap_base`, and no other allocator is linked.
    unsafe { talc.claim(base.cast_mut(), end - base.addr()) }
}

/// Claims nothing: on WASI, the C library has an allocator of its own for that memory.
#[cfg(target_os = "wasi")]
fn claim_first<B: Binning>(_: &mut Talc<Pages, B>) -> Option<NonNull<u8>> {
    None
}
