//! The log, in which one lookup and one policy can be followed.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use namegate_integration::Scenario;

use super::plan;

/// The lines in which all of these stand, in order.
fn lines(scenario: &Scenario, parts: &[&str]) -> Vec<String> {
    let log = scenario.log().into_iter();
    log.filter(|line| parts.iter().all(|part| line.contains(part)))
        .collect()
}

#[test]
fn a_lookup_that_is_allowed_and_one_that_is_refused_can_be_followed_by_the_endpoint() {
    let scenario = plan()
        .flags("-vv")
        .allow(0, &["api.example"])
        .allow(1, &["other.example"])
        .records(&["api.example 300 A 198.51.100.7"])
        .start();
    scenario.learn(0, "api.example");
    let of_pod0 = ["lookup:", "endpoint=shop/pod0 ", "name=api.example "];
    scenario.wait_until("the answer's release is logged", || {
        lines(&scenario, &of_pod0)
            .iter()
            .any(|line| line.contains("an answer is released"))
    });
    let steps = lines(&scenario, &of_pod0);
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    assert!(first.contains("a lookup is allowed"), "{steps:#?}");
    assert!(first.contains("policy=\"shop/allow-pod0\""), "{first}");
    assert!(last.contains("an answer is released"), "{steps:#?}");
    assert!(last.contains("addresses=[198.51.100.7]"), "{last}");

    let reply = scenario.ask(1, "api.example", RecordType::A);
    assert_eq!(reply.code(), ResponseCode::NXDomain);
    let of_pod1 = ["lookup:", "endpoint=shop/pod1 ", "name=api.example "];
    scenario.wait_until("the refusal is logged", || !lines(&scenario, &of_pod1).is_empty());
    let steps = lines(&scenario, &of_pod1);
    for step in &steps {
        assert!(step.contains("DEBUG") && step.contains("a lookup is refused"), "{step}");
        assert!(step.contains("policy=\"shop/allow-pod1\""), "{step}");
        assert!(
            step.contains("no toFQDNs selector of shop/pod1 matches api.example"),
            "{step}"
        );
    }
}

#[test]
fn a_policy_can_be_followed_from_reading_it_until_it_is_gone() {
    let mut scenario = plan().flags("-v").allow(0, &["api.example"]).start();
    scenario.expect_errors("allow-pod0");
    let of_policy = |what: &str| lines(&scenario, &["policy=\"shop/allow-pod0\"", what]);
    scenario.wait_until("the policy's reading and enforcement are logged", || {
        of_policy("was read").len() == 1 && of_policy("is in force").len() == 1
    });
    assert!(of_policy("was read")[0].contains("state=\"accepted\""));
    assert!(of_policy("is in force")[0].contains("endpoints=\"shop/pod0\""));

    scenario.allow(0, &["not a name"]);
    scenario.wait_until("it is logged that the last good version stays", || {
        !of_policy("state=\"kept-last-good\"").is_empty()
    });
    assert_eq!(of_policy("is in force").len(), 1, "nothing has changed for it");

    scenario.remove("allow-pod0.yaml");
    scenario.wait_until("its end is logged", || {
        of_policy("selects no endpoint of this node any more").len() == 1
    });
}
