//! What a full ledger takes, counted by the allocator.
#![allow(unsafe_code)] // an allocator cannot be written without

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fqdn_cache::{Answer, LeaseTerms, Ledger, Limits, Time};
use policy::Name;

/// The system's allocator, with a count of the bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// What an allocation really takes in a common allocator: a header, and a multiple of 16.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed to `System` unchanged; counting touches no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(taken(layout), Ordering::Relaxed);
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

#[test]
fn a_hundred_thousand_names_with_two_addresses_fit_in_30_mib() {
    const NAMES: u32 = 100_000;
    let before = IN_USE.load(Ordering::Relaxed);
    let mut ledger = Ledger::new(Limits::default(), LeaseTerms::default());
    for i in 0..NAMES {
        // Spread over the address space, as the addresses of strangers are.
        let spread = i.wrapping_mul(2_654_435_761);
        ledger.learn(
            Time::from_millis(i.into()),
            &Answer {
                name: Name::parse(&format!("host-{i:06}.service.example.com")).unwrap(),
                addresses: vec![
                    (Ipv4Addr::from(spread).into(), Duration::from_secs(300)),
                    (
                        IpAddr::from(Ipv6Addr::from(u128::from(spread) << 64 | 1)),
                        Duration::from_secs(300),
                    ),
                ],
                source: Ipv4Addr::new(10, 96, 0, 10).into(),
                terms: None,
            },
        );
    }
    assert_eq!(ledger.size(), (NAMES as usize, 2 * NAMES as usize));
    let bytes = IN_USE.load(Ordering::Relaxed) - before;
    println!("{} bytes a name, {} MiB", bytes / NAMES as usize, bytes >> 20);
    assert!(bytes < 30 << 20, "{bytes} bytes");
    drop(ledger);
    assert!(
        IN_USE.load(Ordering::Relaxed) - before < 1 << 20,
        "a dropped ledger leaves nothing"
    );
}
