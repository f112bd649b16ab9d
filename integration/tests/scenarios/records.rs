//! Refused and audited packets, from a `log` rule to what a person reads.

use api::WithheldRow;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{RESOLVER, ScriptedAnswer, dns};
use namegate_integration::{Scenario, ip};

use super::plan;

/// Logs what pod 0 sends to `destination`, as the ruleset does.
fn log(scenario: &Scenario, verdict: &str, destination: &str) {
    let pod = scenario.pod(0).address4();
    scenario.nft("add table inet logging; add chain inet logging forward { type filter hook forward priority -10; }");
    scenario.nft(&format!(
        r#"add rule inet logging forward ip saddr {pod} ip daddr {destination} tcp flags syn / syn,ack log prefix "namegate {verdict}" group 5371"#
    ));
}

fn wait_until_recorded(scenario: &Scenario) {
    scenario.wait_until("packets are recorded", || {
        scenario.installation().status().unwrap().records.on
    });
}

#[test]
fn dropped_packets_are_listed_with_pod_name_and_policy() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    wait_until_recorded(&scenario);
    log(&scenario, "audited", "198.51.100.1");
    log(&scenario, "refused", "198.51.100.2");
    let a = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, a).is_connected());
    scenario.wait_until("the audited packet is listed", || {
        scenario.installation().drops().unwrap().len() == 1
    });
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());
    scenario.wait_until("the refused packet is listed", || {
        scenario.installation().drops().unwrap().len() == 2
    });

    let rows = scenario.installation().drops().unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.verdict.as_str(),
                row.pod.as_deref(),
                row.destination,
                row.port,
                row.name.as_deref(),
                row.policy.as_deref(),
            )
        })
        .collect();
    let (pod, policy) = (Some("shop/pod0"), Some("shop/allow-pod0"));
    assert_eq!(
        told,
        [
            ("refused", pod, ip("198.51.100.2"), Some(443), None, policy),
            ("audited", pod, ip("198.51.100.1"), Some(443), Some("a.example"), policy),
        ]
    );
    assert_eq!(rows[1].seen.count, 1);

    let status = scenario.installation().status().unwrap();
    assert_eq!((status.records.audited, status.records.overruns), (1, 0));
    let audited = r#"namegate_audited_packets_total{direction="egress",namespace="shop"}"#;
    assert_eq!(scenario.agent().metric(audited).unwrap(), 1.0);

    let shown = scenario
        .installation()
        .inspect("drops", &["--audited", "--pod", "shop/pod0"])
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("a.example") && !shown.contains("refused"), "{shown}");
}

#[test]
fn a_group_that_another_program_has_is_said_and_taken_once_it_is_free() {
    let mut scenario = plan().allow(0, &["a.example"]).build();
    let holder = scenario
        .lab()
        .node()
        .run(|| enforcer::records::RecordListener::bind(5371, |_| {}).unwrap())
        .unwrap();
    scenario.start();
    scenario.wait_until("the failure is told", || {
        let records = scenario.installation().status().unwrap().records;
        !records.on
            && records
                .failure
                .is_some_and(|failure| failure.contains("group 5371 is taken"))
    });
    let output = scenario.installation().inspect("drops", &[]).unwrap();
    assert_eq!(output.status.code(), Some(2), "no empty list: {output:?}");
    drop(holder);
    scenario.wait_until("packets are recorded", || {
        scenario.installation().status().unwrap().records.on
    });
}

#[test]
fn records_that_are_switched_off_are_no_failure() {
    let scenario = plan().flags("--records-group off").allow(0, &["a.example"]).start();
    let records = scenario.installation().status().unwrap().records;
    assert!(!records.on && records.failure.is_none());
    let output = scenario.installation().inspect("drops", &[]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("does not record packets"), "{said}");
}

#[test]
fn answers_that_are_withheld_are_listed_counted_and_logged() {
    let resolver = dns(RESOLVER);
    let scenario = plan()
        .upstreams(&[&resolver.to_string()])
        .allow(0, &["*.example"])
        .start();
    wait_until_recorded(&scenario);
    let stray = ["a.example 60 A 198.51.100.1", "victim.test 60 A 198.51.100.2"];
    let script = ScriptedAnswer::Verbatim(stray.map(Into::into).into());
    scenario.lab().resolver().script("a.example", script).unwrap();
    for over in [LookupTransport::PlainUdp, LookupTransport::Tcp] {
        let reply = scenario
            .pod(0)
            .resolve(resolver, "a.example", RecordType::A, over)
            .unwrap();
        assert_eq!(
            (reply.code(), reply.addresses().len()),
            (ResponseCode::ServFail, 0),
            "{over:?}"
        );
    }

    let shown = scenario.installation().inspect("drops", &["-o", "json"]).unwrap();
    let rows: Vec<WithheldRow> = serde_json::from_slice(&shown.stdout).unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.verdict.as_str(),
                row.pod.as_deref(),
                row.name.as_str(),
                row.upstream,
                row.reason.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("withheld", Some("shop/pod0"), "a.example", resolver, "off-chain")]
    );
    // The upstream is asked twice for each.
    assert_eq!(rows[0].seen.count, 4);
    let counted = r#"namegate_dns_withheld_total{reason="off-chain"}"#;
    assert_eq!(scenario.agent().metric(counted).unwrap(), 4.0);
    let said = |line: &String| {
        [
            "WARN",
            "an answer was withheld",
            "a.example",
            "shop/pod0",
            "broken chain",
            "10.53.0.53:53",
        ]
        .iter()
        .all(|part| line.contains(part))
    };
    assert!(scenario.log().iter().any(said), "{:#?}", scenario.log());
    let shown = scenario
        .installation()
        .inspect("drops", &["--pod", "shop/pod0"])
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("withheld") && shown.contains("broken chain"), "{shown}");
}
