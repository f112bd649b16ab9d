//! Names that many programs have in common.

use std::time::Duration;

use clock::Time;
use fqdn_cache::{LearnedAnswer, LeaseOwner, Ledger};

use super::*;

/// A policy of this namespace for every pod.
fn of_all(policy: &str, annotations: &str, rules: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {policy}, namespace: n, annotations: {{{annotations}}}}}\n\
         spec: {{endpointSelector: {{}}, egress: [{rules}]}}\n"
    )
}

fn names_on(ports: u16, allowed: &str) -> String {
    let port = |number| format!("{{port: '{}', protocol: TCP}}", 8000 + 20 * number);
    let ports: Vec<String> = (0..ports).map(port).collect();
    format!("{{toFQDNs: [{allowed}], toPorts: [{{ports: [{}]}}]}}", ports.join(", "))
}

/// So many pods, each with a name of its own beside the wildcard.
fn sharing(pods: u8, ports: u16) -> Vec<String> {
    let wildcard = of_all("all", "", &names_on(ports, "{matchPattern: '*.shared.example'}"));
    let own = (1..=pods).flat_map(|number| {
        let name = format!("p{number}");
        let allowed = names_on(ports, &format!("{{matchName: {name}.example}}"));
        [pod(&name, &format!("10.0.1.{number}")), policy_of(&name, &allowed)]
    });
    [wildcard].into_iter().chain(own).collect()
}

#[test]
fn a_learned_address_is_one_element_however_many_programs_and_ports_there_are() {
    for (pods, ports) in [(1, 1), (10, 1), (100, 1), (1, 12), (100, 12)] {
        let plan = plan(&sharing(pods, ports));
        assert_eq!(plan.desired.programs.len(), usize::from(pods));
        let of = |name: &str| elements_of(&plan, name, "198.51.100.1", "192.0.2.53").len();
        assert_eq!(
            (of("a.shared.example"), of("p1.example")),
            (1, 1),
            "{pods} pods, {ports} ports"
        );
        let all = opened(&plan, "a.shared.example", "198.51.100.1", "192.0.2.53");
        assert_eq!(all.len(), usize::from(pods));
        assert_eq!(
            opened(&plan, "p1.example", "198.51.100.1", "192.0.2.53"),
            [program(&plan, "10.0.1.1")]
        );
    }
}

/// Each policy lists the wildcard itself, beside names of its own.
#[test]
fn policies_need_not_agree_in_more_than_the_wildcard() {
    let objects = (1..=100).flat_map(|number| {
        let name = format!("p{number}");
        let allowed = names_on(
            12,
            &format!("{{matchPattern: '*.shared.example'}}, {{matchName: {name}.example}}"),
        );
        [pod(&name, &format!("10.0.1.{number}")), policy_of(&name, &allowed)]
    });
    let plan = plan(&objects.collect::<Vec<_>>());
    assert_eq!(plan.desired.programs.len(), 100);
    assert_eq!(
        elements_of(&plan, "a.shared.example", "198.51.100.1", "192.0.2.53").len(),
        1
    );
    assert_eq!(
        opened(&plan, "a.shared.example", "198.51.100.1", "192.0.2.53").len(),
        100
    );
}

#[test]
fn names_with_other_lease_terms_or_another_teacher_have_a_set_of_their_own() {
    let wildcard = names_on(1, "{matchPattern: '*.shared.example'}");
    let objects = [
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        pod("c", "10.0.0.3"),
        policy_of("a", &wildcard),
        policy_of("b", &wildcard).replace("namespace: n}", "namespace: n, annotations: {namegate.io/grace: 5m}}"),
        policy_of("c", &format!("{OWN_RESOLVER}, {wildcard}")),
    ];
    let plan = plan(&objects);
    assert_eq!(
        elements_of(&plan, "a.shared.example", "198.51.100.1", "192.0.2.53").len(),
        3
    );
    assert_eq!(
        opened(&plan, "a.shared.example", "198.51.100.1", "203.0.113.53"),
        [program(&plan, "10.0.0.3")]
    );
}

/// Both evaluations look the names up in one set.
#[test]
fn what_is_audited_shares_its_names_with_what_is_enforced() {
    let mut objects = sharing(2, 1);
    objects.push(of_all(
        "audited",
        "namegate.io/mode: audit",
        &names_on(1, "{matchName: audited.example}"),
    ));
    let plan = plan(&objects);
    assert!(plan.desired.programs.values().all(|program| program.audited.is_some()));
    assert_eq!(
        elements_of(&plan, "a.shared.example", "198.51.100.1", "192.0.2.53").len(),
        1
    );
    let audited = elements_of(&plan, "audited.example", "198.51.100.1", "192.0.2.53");
    assert_eq!(audited.len(), 1);
    for program in plan.desired.programs.values() {
        assert!(!looks_up(program, audited.first().unwrap()), "it is not enforced");
    }
}

#[test]
fn the_ledger_fills_the_sets_of_shared_names() {
    let plan = plan(&sharing(3, 12));
    let mut ledger = Ledger::new(settings().limits, settings().lease);
    let now = Time::from_millis(0);
    let answer = LearnedAnswer {
        name: name("a.shared.example"),
        addresses: vec![(ip("198.51.100.1"), Duration::from_secs(60))].into(),
        teacher: plan.teacher(ip("192.0.2.53")),
        owner: LeaseOwner(1),
        terms: None,
    };
    ledger.learn(now, &answer);
    let elements = plan.all_elements(&ledger, now);
    assert_eq!(elements.len(), 1);
    let (element, end, _) = elements[0];
    assert_eq!(end, now + settings().lease.lease(Duration::from_secs(60)));
    assert!(
        plan.desired
            .programs
            .values()
            .all(|program| looks_up(program, &element))
    );
}
