//! How much memory a test's program has in use.
//!
//! ```
//! #[global_allocator]
//! static HEAP: gvpn_lab::heap::Counting = gvpn_lab::heap::Counting;
//! # fn main() { assert!(gvpn_lab::heap::in_use() > 0) }
//! ```

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which counts. Make it the program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

/// Bytes that are allocated now; zero in programs whose allocator does not count.
pub fn in_use() -> usize {
    IN_USE.load(Relaxed)
}

// SAFETY: everything is left to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}
