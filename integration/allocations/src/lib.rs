//! What a piece of work allocates, counted by the allocator itself. For tests alone: a program that
//! links this crate allocates through it.
#![allow(unsafe_code)] // An allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Octets that all threads have in use.
pub fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

/// What `work` returns, and how often the calling thread allocated meanwhile; to grow an allocation
/// counts as one.
pub fn count<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

/// The system's allocator, with counts.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Of a thread: others allocate when they like.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// What an allocation really takes in a common allocator: a header, and a multiple of 16.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed to `System` unchanged. Counting touches no memory of the allocation
// and allocates nothing: the thread's count is made by a constant and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(taken(layout), Ordering::Relaxed);
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, and so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
