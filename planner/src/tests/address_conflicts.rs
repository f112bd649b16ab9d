//! Addresses that several pods claim.

use enforcer::KernelProgram;

use super::*;

#[test]
fn an_address_that_pods_with_different_policies_claim_is_closed() {
    let contested = |others: &[String]| {
        let objects = [pod("a", "10.0.0.1"), pod("b", "10.0.0.1"), allow("a", "a.example")];
        plan(&[&objects, others].concat())
    };
    // The other one is not selected, or differently, or may do the same and ask more.
    let asks_more = "{toEndpoints: [{}], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}";
    for others in [
        vec![],
        vec![allow("b", "b.example")],
        vec![
            allow("b", "a.example"),
            policy_of("b", asks_more).replace("name: b,", "name: more,"),
        ],
    ] {
        let plan = contested(&others);
        let governed = &plan.governed[&ip("10.0.0.1")];
        assert!(governed.questions.is_none());
        let program = &plan.desired.programs[&governed.program];
        assert_eq!(**program, KernelProgram::new(&crate::address_conflicts::refuse_all()));
        for (_, dispatch) in plan.desired.dispatch.iter() {
            assert_eq!(dispatch[&ip("10.0.0.1")], governed.program, "it is closed both ways");
        }
        assert!(plan.desired.intercepted.contains(&ip("10.0.0.1")));
        let is_contested = |row: &EndpointRow| row.egress == "contested" && row.ingress == "contested";
        assert!(plan.endpoints.iter().all(is_contested));
        assert_eq!(
            plan.conflicts[0].to_string(),
            "10.0.0.1 is claimed by n/a and n/b, whose policies differ: NOTHING is let through from it and to it"
        );
    }
    let alike = contested(&[allow("b", "a.example")]);
    assert_eq!(alike.governed[&ip("10.0.0.1")].id.to_string(), "n/a");
    assert!(!alike.conflicts[0].closed);
    assert!(alike.endpoints.iter().all(|row| row.egress == "default-deny"));
}

#[test]
fn only_the_contested_address_of_a_pod_is_closed() {
    let dual = pod("a", "10.0.0.1").replace("[{ip: '10.0.0.1'}]", "[{ip: '10.0.0.1'}, {ip: '2001:db8:1::1'}]");
    let plan = plan(&[dual, pod("b", "10.0.0.1"), allow("a", "a.example")]);
    assert!(plan.governed[&ip("10.0.0.1")].questions.is_none());
    assert!(plan.governed[&ip("2001:db8:1::1")].questions.is_some());
    assert_ne!(program(&plan, "10.0.0.1"), program(&plan, "2001:db8:1::1"));
}

#[test]
fn a_contest_is_reported_at_each_pod() {
    use cluster::{ReadReport, ReportState};
    let conflicts = plan(&[pod("a", "10.0.0.1"), pod("b", "10.0.0.1"), allow("a", "a.example")]).conflicts;
    let said = |object: &str, state| ReadReport::new(None, object.into(), state, Vec::new());
    let mut reports = vec![
        said("Pod n/a", ReportState::Accepted),
        said("Pod n/c", ReportState::Accepted),
        // A second definition, which does not count.
        said("Pod n/b", ReportState::Rejected),
        said("Pod n/b", ReportState::KeptLastGood),
    ];
    report(&conflicts, &mut reports);
    let shown: Vec<_> = reports
        .iter()
        .map(|it| (it.object.as_str(), it.state.as_str(), it.diagnostics.len()))
        .collect();
    assert_eq!(
        shown,
        [
            ("Pod n/a", "partial", 1),
            ("Pod n/c", "accepted", 0),
            ("Pod n/b", "rejected", 0),
            ("Pod n/b", "kept-last-good", 1),
        ]
    );
    // A source that reports nothing of its Pods.
    let mut reports = Vec::new();
    report(&conflicts, &mut reports);
    assert_eq!(reports.len(), 2);
}
