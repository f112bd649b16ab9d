//! With the answer cache on, every promise is what it was without.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::{RESOLVER, dns};
use namegate_integration::ip;

use super::plan;

#[test]
fn a_cached_answer_opens_its_addresses_for_whoever_may_ask_and_says_nothing_to_others() {
    let scenario = plan()
        .flags("--dns-cache 100 --workers 1")
        .allow(0, &["api.example"])
        .allow(1, &["other.example"])
        .records(&["api.example 300 A 198.51.100.7", "other.example 300 A 198.51.100.8"])
        .start();
    let asked = || scenario.lab().resolver().asked("api.example");
    assert_eq!(scenario.learn(0, "api.example"), ip("198.51.100.7"));
    assert_eq!(scenario.learn(0, "api.example"), ip("198.51.100.7"));
    assert_eq!(asked(), 1);
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());

    let reply = scenario.ask(1, "api.example", RecordType::A);
    assert_eq!(
        reply.code(),
        ResponseCode::NXDomain,
        "the cache does not speak to whom policy denies"
    );
    assert!(scenario.connect(1, ip("198.51.100.7")).is_refused());

    // Now it may: the answer comes out of the cache, and its address is open with it.
    scenario.allow(1, &["api.example"]);
    scenario.wait_until("the other pod may ask", || {
        scenario.ask(1, "api.example", RecordType::A).address() == Some(ip("198.51.100.7"))
    });
    assert!(scenario.connect(1, ip("198.51.100.7")).is_connected());
    assert_eq!(asked(), 1);
}

#[test]
fn addresses_that_were_removed_from_the_kernel_are_put_back_before_a_cached_answer_is_released() {
    let mut scenario = plan()
        .flags("--dns-cache 100")
        .allow(0, &["api.example"])
        .records(&["api.example 300 A 198.51.100.7"])
        .start();
    let resolve = || {
        scenario.pod(0).resolve(
            dns(RESOLVER),
            "api.example",
            RecordType::A,
            lab::client::LookupTransport::Udp,
        )
    };
    for _ in 0..3 {
        assert_eq!(resolve().unwrap().address(), Some(ip("198.51.100.7")));
    }
    scenario.nft("delete table inet namegate");
    // Lookups go past the agent until it has noticed and installed its table again.
    scenario.wait_until("the table is there again", || {
        scenario.nft("list tables").contains("inet namegate")
    });
    scenario.wait_until("the agent answers again", || {
        resolve().is_ok_and(|reply| reply.address() == Some(ip("198.51.100.7")))
    });
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    scenario.expect_errors("the table was removed from outside");
}
