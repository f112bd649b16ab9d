//! Kernels that are full, and neighbours that flush what is not theirs.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use namegate_integration::ip;

use super::plan;

#[test]
fn a_full_set_is_servfail_and_harms_nobody_else() {
    let many: Vec<String> = (1..=200)
        .map(|last| format!("many.example 60 A 203.0.113.{last}"))
        .collect();
    let mut records: Vec<&str> = many.iter().map(String::as_str).collect();
    records.extend(["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"]);
    let mut scenario = plan()
        .flags("--set-capacity 64")
        .allow(0, &["a.example", "b.example", "many.example"])
        .allow(1, &["b.example"])
        .records(&records)
        .start();
    scenario.expect_errors("full");
    let a = scenario.learn(0, "a.example");
    let reply = scenario
        .pod(0)
        .resolve(
            lab::dns(lab::RESOLVER),
            "many.example",
            RecordType::A,
            lab::client::LookupTransport::Tcp,
        )
        .unwrap();
    assert_eq!((reply.code(), reply.addresses().len()), (ResponseCode::ServFail, 0));
    assert!(
        scenario.connect(0, ip("203.0.113.1")).is_refused(),
        "all of an answer, or nothing of it"
    );
    assert!(
        scenario.leases("many.example").is_empty(),
        "what the kernel did not take is no lease, and fills no ledger"
    );
    assert!(scenario.connect(0, a).is_connected(), "what was open stays open");
    let b = scenario.learn(0, "b.example");
    assert!(scenario.connect(0, b).is_connected(), "what fits is still opened");
    assert_eq!(scenario.learn(1, "b.example"), b);
    assert!(
        scenario.connect(1, b).is_connected(),
        "another program has its own room"
    );
}

#[test]
fn what_an_answer_has_beyond_what_a_name_may_hold_is_never_open() {
    let many: Vec<String> = (1..=20)
        .map(|last| format!("many.example 60 A 203.0.113.{last}"))
        .collect();
    let records: Vec<&str> = many.iter().map(String::as_str).collect();
    let scenario = plan()
        .flags("--max-addresses-per-name 8")
        .allow(0, &["many.example"])
        .records(&records)
        .start();
    scenario.ask(0, "many.example", RecordType::A);
    let open = || -> Vec<bool> {
        let address = |last| ip(&format!("203.0.113.{last}"));
        (1..=20)
            .map(|last| scenario.connect(0, address(last)).is_connected())
            .collect()
    };
    let before = open();
    assert_eq!(before.iter().filter(|is_open| **is_open).count(), 8);
    assert_eq!(
        scenario
            .agent()
            .metric("namegate_ledger_addresses_left_out_total")
            .unwrap(),
        12.0
    );
    // An edit that has nothing to do with it.
    scenario.allow(0, &["many.example", "other.example"]);
    assert_eq!(open(), before);
}

#[test]
fn a_flushed_ruleset_is_put_back_with_what_was_learned() {
    let mut scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"])
        .start();
    scenario.expect_errors("the table was removed from outside");
    let a = scenario.learn(0, "a.example");
    scenario.nft("flush ruleset");
    scenario.wait_until("the rest is closed again", || {
        scenario.connect(0, ip("198.51.100.2")).is_refused()
    });
    scenario.wait_until("lookups are intercepted again", || {
        scenario.ask(0, "b.example", RecordType::A).code() == ResponseCode::NXDomain
    });
    scenario.wait_until("what was learned is open again", || {
        scenario.connect(0, a).is_connected()
    });
    assert_eq!(scenario.learn(0, "a.example"), a);
}

#[test]
fn tables_of_others_are_left_alone_and_their_drops_stand() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .build();
    scenario.nft("add table inet other; add chain inet other forward { type filter hook forward priority 10; }; add rule inet other forward ip daddr 198.51.100.1 tcp dport 9 drop");
    let before = scenario.nft("list table inet other");
    let mut scenario = scenario;
    scenario.start();
    let a = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, a).is_connected());
    assert!(
        !scenario.pod(0).connect(a, 9).unwrap().is_connected(),
        "an accept here never overrides a drop there"
    );
    scenario.terminate();
    scenario.cleanup();
    assert_eq!(scenario.nft("list table inet other"), before);
}
