//! What the lookup path allocates, counted by the allocator.
#![allow(unsafe_code)] // an allocator cannot be written without

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use policy::{Name, NameIndex, Pattern};

/// The system's allocator, with a count of each thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed to `System` unchanged; counting touches no memory of the allocation and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, and so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

#[test]
fn a_name_from_a_packet_is_one_allocation_even_if_all_of_it_is_escaped() {
    let plain: [&[u8]; 3] = [b"Www", b"Example", b"com"];
    let (_, count) = allocations(|| Name::from_wire_labels(plain));
    assert_eq!(count, 1);

    // 3 × 64 + 62 octets and the root: the longest there is.
    let (long, rest) = ([0xff_u8; 63], [0xff_u8; 61]);
    let longest: [&[u8]; 4] = [&long, &long, &long, &rest];
    let (name, count) = allocations(|| Name::from_wire_labels(longest));
    assert_eq!(count, 1);
    assert_eq!(name.as_str().len(), 4 * (3 * 63 + 61) + 4);
}

#[test]
fn a_lookup_in_the_index_allocates_nothing() {
    let mut index = NameIndex::default();
    for (value, text) in [
        "a.example.com",
        "*.example.com",
        "**.example.com",
        "a*b*c.*.com",
        "*a.example.com",
        "*",
    ]
    .into_iter()
    .enumerate()
    {
        index.insert(&Pattern::pattern(text).unwrap(), value);
    }
    for text in ["a.example.com", "axbxc.example.com", "x.y.example.com", "none.example"] {
        let name = Name::parse(text).unwrap();
        let mut found = 0;
        let (any, count) = allocations(|| {
            index.each_match(&name, |_| found += 1);
            index.any_match(&name)
        });
        assert_eq!((any, count), (true, 0), "{text}");
        assert!(found > 0);
    }
}
