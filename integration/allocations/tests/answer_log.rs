//! What the memory of names behind addresses takes, counted by the allocator.
// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use agent::records::AnswerLog;
use allocations::{count, in_use};
use names::Name;
use planner::Governed;
use policy::{EndpointId, ProgramId};

/// One test, since what other threads have in use would count too.
#[test]
fn a_full_memory_of_names_fits_in_11_mib_and_what_is_known_is_noted_without_allocating() {
    let before = in_use();
    let answer_log = AnswerLog::default();
    for pod in 0..100 {
        let endpoint = endpoint(pod);
        for number in 0..2_000u32 {
            answer_log.saw(&endpoint, &name(number), [address(number)]);
        }
    }
    answer_log.file();
    let used = in_use() - before;
    println!("{used} bytes");
    assert!(used < 11 << 20, "{used} bytes");

    let (endpoint, name) = (endpoint(99), name(1_999));
    let ((), allocated) = count(|| {
        answer_log.saw(&endpoint, &name, [address(1_999), address(1_998)]);
        answer_log.file();
    });
    assert_eq!(allocated, 0);
}

fn endpoint(pod: u32) -> Arc<Governed> {
    Arc::new(Governed {
        id: EndpointId {
            namespace: "shop".into(),
            name: format!("checkout-7d9c6b5f4-{pod:05}"),
        },
        program: ProgramId(1),
        questions: None,
    })
}

fn name(number: u32) -> Name {
    Name::parse(&format!("host-{number:06}.service.example.com")).unwrap()
}

/// Spread over the address space, as the addresses of strangers are.
fn address(number: u32) -> IpAddr {
    Ipv6Addr::from(u128::from(number.wrapping_mul(2_654_435_761)) << 64 | 1).into()
}
