//! What the memory of names behind addresses takes, counted by the allocator.
#![allow(clippy::unwrap_used)] // Clippy's exception for tests does not reach the functions that they share.
#![allow(unsafe_code)] // An allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use agent::records::Sightings;
use policy::Name;
use policy::endpoint::EndpointId;

/// The system's allocator, with a count of the bytes in use and of the allocations.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// What an allocation really takes in a common allocator: a header, and a multiple of 16.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed to `System` unchanged; counting touches no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(taken(layout), Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, and so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, since other threads would count too.
#[test]
fn a_full_memory_of_names_fits_in_11_mib_and_what_is_known_is_noted_without_allocating() {
    let before = IN_USE.load(Ordering::Relaxed);
    let sightings = Sightings::default();
    for pod in 0..100 {
        let endpoint = endpoint(pod);
        for number in 0..2_000u32 {
            sightings.saw(&endpoint, &name(number), [address(number)].into_iter());
        }
    }
    let used = IN_USE.load(Ordering::Relaxed) - before;
    println!("{used} bytes");
    assert!(used < 11 << 20, "{used} bytes");

    let (endpoint, name) = (endpoint(99), name(1_999));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    sightings.saw(&endpoint, &name, [address(1_999), address(1_998)].into_iter());
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), allocations);
}

fn endpoint(pod: u32) -> EndpointId {
    EndpointId {
        namespace: "shop".into(),
        name: format!("checkout-7d9c6b5f4-{pod:05}"),
    }
}

fn name(number: u32) -> Name {
    Name::parse(&format!("host-{number:06}.service.example.com")).unwrap()
}

/// Spread over the address space, as the addresses of strangers are.
fn address(number: u32) -> IpAddr {
    Ipv6Addr::from(u128::from(number.wrapping_mul(2_654_435_761)) << 64 | 1).into()
}
