use names::Pattern;
use policy::labels::{LabelSelector, Requirement};
use policy::{
    Action, LeaseTerms, NameGroup, ObjectSelector, Origin, Peer, PolicyId, PolicyKind, PortSet, Program,
    Rule as PolicyRule, Tiers, Zone,
};

use super::*;
use crate::ruleset::{longest_handover_path, longest_path};

fn rule(action: Action, peer: Peer, ports: PortSet) -> PolicyRule {
    PolicyRule {
        action,
        peer,
        ports,
        named: vec![],
        through: None,
        lease: LeaseTerms::default(),
        origins: vec![],
    }
}

fn name(number: usize) -> Peer {
    Peer::Name(Pattern::name(&format!("n{number}.example")).unwrap())
}

fn prefix(number: usize, zone: Zone) -> Peer {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    Peer::Prefix(zone, format!("10.{high}.{low}.0/24").parse().unwrap())
}

fn tcp(first: u16, last: u16) -> PortSet {
    let protocol = Protocol::Tcp;
    PortSet::Ranges(vec![PortRange { protocol, first, last }])
}

fn origin() -> Origin {
    let policy = PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: "n".into(),
        name: "p".into(),
    };
    Origin {
        policy,
        rule: String::new(),
    }
}

fn folded(tiers: Tiers) -> KernelProgram {
    KernelProgram::new(&Program {
        enforced: tiers,
        ..Program::default()
    })
}

/// Rules as that many policies have them: in every tier, for names and prefixes of all places, on
/// single ports, ranges, types and everything.
fn everything(policies: usize) -> Tiers {
    let port = |number: usize| u16::try_from(1000 + 40 * (number % 1000)).unwrap();
    let echo = || PortSet::Ranges(vec![PortRange::single(Protocol::Icmp, 8)]);
    let network = |action| {
        (0..policies).flat_map(move |n| {
            [
                rule(action, name(n), tcp(port(n), port(n))),
                rule(action, name(n), tcp(port(n), port(n) + 20)),
                rule(action, name(n), PortSet::All),
                rule(action, prefix(n, Zone::World), tcp(port(n), port(n) + 1)),
                rule(action, prefix(n, Zone::Cluster), PortSet::All),
                rule(action, prefix(n, Zone::Host), echo()),
            ]
        })
    };
    Tiers {
        admin: (0..policies).map(|n| rule(Action::Allow, name(n), echo())).collect(),
        network: network(Action::Deny).chain(network(Action::Allow)).collect(),
        closed_by: vec![],
        baseline: (0..policies)
            .map(|n| rule(Action::Deny, prefix(n, Zone::World), PortSet::All))
            .collect(),
        ..Tiers::default()
    }
}

#[test]
fn what_a_packet_pays_is_bounded_and_the_same_for_10_and_1000_policies() {
    let of = |policies| longest_path(&folded(everything(policies)));
    let few = of(10);
    assert!(few <= 4 * 3 + 1 + 2 + 3, "{few}");
    assert_eq!([of(100), of(1000)], [few, few]);
}

#[test]
fn what_is_looked_into_costs_no_lookup_where_packets_are_let_through() {
    let through = |rule: PolicyRule| PolicyRule {
        through: Some(Arc::default()),
        ..rule
    };
    let plain = |tiers: &Tiers| Tiers {
        network: tiers
            .network
            .iter()
            .filter(|rule| rule.through.is_none())
            .cloned()
            .collect(),
        ..tiers.clone()
    };
    let allowed = || rule(Action::Allow, name(0), tcp(443, 443));
    for (inspected, more) in [
        (rule(Action::Allow, name(1), tcp(80, 80)), vec![]),
        (rule(Action::Allow, name(1), tcp(1000, 2000)), vec![]),
        (rule(Action::Allow, name(1), tcp(1000, 2000)), vec![allowed()]),
        (
            rule(Action::Allow, prefix(1, Zone::World), tcp(80, 80)),
            vec![allowed()],
        ),
        (
            rule(Action::Allow, prefix(1, Zone::World), tcp(1000, 2000)),
            vec![allowed()],
        ),
        (
            rule(Action::Allow, name(1), tcp(80, 80)),
            vec![allowed(), rule(Action::Allow, prefix(1, Zone::World), PortSet::All)],
        ),
    ] {
        let mut network = more;
        network.push(through(inspected));
        let tiers = Tiers {
            network,
            closed_by: vec![origin()],
            ..Tiers::default()
        };
        let program = folded(tiers.clone());
        assert_eq!(
            longest_path(&program),
            longest_path(&folded(plain(&tiers))),
            "{tiers:?}"
        );
        let chains = chains(Direction::Egress, ProgramId(1), &program);
        assert!(!format!("{chains:?}").contains("inspect"), "{chains:?}");
    }
}

/// The same rules, with those of TCP looked into.
fn inspecting(policies: usize) -> Tiers {
    let is_tcp = |ports: &PortSet| matches!(ports, PortSet::Ranges(ranges) if ranges.iter().all(|range| range.protocol == Protocol::Tcp));
    let mut tiers = everything(policies);
    tiers.closed_by = vec![origin()];
    tiers.baseline.clear();
    let allowing = tiers.network.iter_mut().filter(|rule| rule.action == Action::Allow);
    for rule in allowing.filter(|rule| is_tcp(&rule.ports)) {
        rule.through = Some(Arc::default());
    }
    tiers.network.sort_by_key(|rule| (rule.action, rule.through.is_some()));
    tiers
}

#[test]
fn to_find_out_whether_a_connection_is_handed_over_costs_no_more_for_more_rules() {
    let of = |policies| longest_handover_path(&folded(inspecting(policies)));
    let few = of(10);
    // What is looked into: exact, the range, its set, two zones, prefixes. Found there: the range
    // and three sets of each of three classes.
    assert!(few <= 3 + 2 + 1 + 1 + 3 * 3, "{few}");
    assert_eq!([of(100), of(1000)], [few, few]);

    let usual = |network| {
        let tiers = Tiers {
            network,
            closed_by: vec![origin()],
            ..Tiers::default()
        };
        longest_handover_path(&folded(tiers))
    };
    let allowed = || rule(Action::Allow, name(0), tcp(443, 443));
    let looked_into = PolicyRule {
        through: Some(Arc::default()),
        ..rule(Action::Allow, name(1), tcp(80, 80))
    };
    assert_eq!(usual(vec![allowed()]), 0, "nothing is handed over");
    assert_eq!(usual(vec![looked_into.clone()]), 1);
    assert_eq!(usual(vec![allowed(), looked_into]), 2, "one more where it is found");
}

#[test]
fn both_directions_read_the_receivers_port_and_differ_in_whose_address_they_read() {
    let program = folded(everything(3));
    let told = |direction: Direction| {
        let chains = chains(direction, ProgramId(1), &program).into_iter();
        let text = chains.map(|chain| format!("{chain:?}\n")).collect::<String>();
        text.replace("\"ep4-", "\"in4-")
            .replace("\"ep6-", "\"in6-")
            .replace("\"refuse\"", "\"refuse-in\"")
            .replace("Destination(", "Source(")
    };
    assert!(told(Direction::Egress).contains("Source(V4), Protocol, Port"));
    assert_eq!(told(Direction::Egress), told(Direction::Ingress));
}

#[test]
fn a_usual_program_costs_one_lookup_and_two_more_where_it_has_prefixes_with_and_without_ports() {
    let closed_by = || vec![origin()];
    let names = |count: usize| {
        (0..count)
            .map(|n| rule(Action::Allow, name(n), tcp(443, 443)))
            .collect::<Vec<_>>()
    };
    for count in [10, 100, 1000] {
        let mut tiers = Tiers {
            network: names(count),
            closed_by: closed_by(),
            ..Tiers::default()
        };
        assert_eq!(longest_path(&folded(tiers.clone())), 1);
        tiers
            .network
            .extend((0..count).map(|n| rule(Action::Allow, prefix(n, Zone::Anywhere), PortSet::All)));
        assert_eq!(longest_path(&folded(tiers.clone())), 2);
        tiers
            .network
            .extend((count..2 * count).map(|n| rule(Action::Allow, prefix(n, Zone::Anywhere), tcp(1, 9))));
        assert_eq!(longest_path(&folded(tiers)), 3);
    }
}

fn sharing(tiers: &Tiers) -> KernelProgram {
    let enforced = KernelTiers {
        id: tiers.id(),
        classifier: Arc::new(Classifier::sharing(tiers)),
    };
    KernelProgram {
        enforced,
        audited: None,
        response: None,
    }
}

/// A rule that selects a namespace.
fn pods_of(namespace: usize) -> Peer {
    let requirements = vec![Requirement::equals(
        "io.kubernetes.pod.namespace",
        &format!("n{namespace}"),
    )];
    Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }))
}

#[test]
fn a_shared_rule_costs_one_lookup_within_the_same_bound() {
    let mut tiers = Tiers {
        network: vec![rule(Action::Allow, pods_of(0), PortSet::All)],
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    assert_eq!(
        longest_path(&sharing(&tiers)),
        1,
        "it needs no set of the program's own"
    );
    tiers.network.push(rule(Action::Allow, name(0), tcp(443, 443)));
    assert_eq!(longest_path(&sharing(&tiers)), 2);
    let many = (1..10).map(|namespace| rule(Action::Allow, pods_of(namespace), tcp(80, 80)));
    tiers.network.extend(many);
    assert_eq!(
        longest_path(&sharing(&tiers)),
        1 + 4,
        "the others are in the program's own set"
    );

    for classes in 1..=4 {
        let mut tiers = Tiers {
            network: (0..10).map(|n| rule(Action::Allow, pods_of(n), tcp(80, 80))).collect(),
            closed_by: vec![],
            ..everything(3)
        };
        tiers.network.extend(everything(3).network);
        tiers.network.sort_by_key(|rule| rule.action);
        if classes < 4 {
            tiers.baseline.clear();
        }
        if classes < 3 {
            tiers.admin.clear();
        }
        if classes < 2 {
            tiers.network.retain(|rule| rule.action == Action::Allow);
        }
        let program = sharing(&tiers);
        let shared = program.enforced.classifier.shared().len();
        let lookups = longest_path(&program);
        assert!(
            lookups <= 4 * 3 + 1 + 2 + 3,
            "{lookups} with {classes} classes, {shared} shared"
        );
        assert_eq!(shared > 0, classes < 4);
    }
}

fn names_on(first: usize, count: usize, ports: PortSet) -> NameGroup {
    let pattern = |n| match name(n) {
        Peer::Name(pattern) => pattern,
        other => panic!("{other:?}"),
    };
    NameGroup {
        is_admin: false,
        patterns: (first..first + count).map(pattern).collect(),
        lease: LeaseTerms::default(),
        ports,
    }
}

/// Tiers that let these names through.
fn with_names(mut tiers: Tiers, groups: Vec<NameGroup>) -> Tiers {
    for group in &groups {
        let rules = group.patterns.iter();
        let rules = rules.map(|pattern| rule(Action::Allow, Peer::Name(pattern.clone()), group.ports.clone()));
        tiers.network.extend(rules);
    }
    tiers.network.sort_by_key(|rule| (rule.action, rule.through.is_some()));
    tiers.name_groups = groups;
    tiers
}

#[test]
fn shared_names_cost_a_lookup_and_one_for_their_ports_within_the_same_bound() {
    let closed = || Tiers {
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    let some = || PortSet::from_ranges((0..12).map(|n| PortRange::single(Protocol::Tcp, 8000 + 2 * n)));
    let cost = |tiers: &Tiers| longest_path(&sharing(tiers));
    assert_eq!(cost(&with_names(closed(), vec![names_on(0, 100, tcp(443, 443))])), 1);
    assert_eq!(cost(&with_names(closed(), vec![names_on(0, 100, PortSet::All)])), 1);
    assert_eq!(cost(&with_names(closed(), vec![names_on(0, 100, some())])), 2);
    let many = with_names(closed(), (0..9).map(|n| names_on(n, 1, tcp(443, 443))).collect());
    assert_eq!(cost(&many), 1 + 4, "the others are in the program's own set");
    let mut denied = with_names(closed(), vec![names_on(0, 1, tcp(443, 443))]);
    denied
        .network
        .insert(0, rule(Action::Deny, prefix(0, Zone::Anywhere), PortSet::All));
    assert_eq!(cost(&denied), 1 + 1, "what prefixes deny is looked up behind them");

    let looked_into = PolicyRule {
        through: Some(Arc::default()),
        ..rule(Action::Allow, name(9), tcp(443, 443))
    };
    let mut inspecting = with_names(closed(), vec![names_on(0, 1, tcp(443, 443))]);
    inspecting.network.push(looked_into);
    assert_eq!(cost(&inspecting), 1, "what is looked into is not looked up");
    let handed_over = longest_handover_path(&sharing(&inspecting));
    assert_eq!(handed_over, 2, "and is handed over unless it is among the names");

    for classes in 1..=4 {
        let mut tiers = everything(3);
        if classes < 4 {
            tiers.baseline.clear();
        }
        if classes < 3 {
            tiers.admin.clear();
        }
        if classes < 2 {
            tiers.network.retain(|rule| rule.action == Action::Allow);
        }
        tiers
            .network
            .extend((0..10).map(|n| rule(Action::Allow, pods_of(n), tcp(80, 80))));
        let tiers = with_names(tiers, (0..9).map(|n| names_on(100 + n, 1, some())).collect());
        let lookups = cost(&tiers);
        let shared = Classifier::sharing(&tiers).shared_names().len();
        assert!(
            lookups <= 4 * 3 + 1 + 2 + 3,
            "{lookups} with {classes} classes, {shared} shared"
        );
    }
}

#[test]
fn a_wide_range_of_ports_is_looked_up_where_nothing_else_is() {
    let mut tiers = Tiers {
        network: vec![rule(Action::Allow, name(0), tcp(80, 443))],
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    assert_eq!(longest_path(&folded(tiers.clone())), 2, "the range, and its addresses");
    tiers.network.push(rule(Action::Allow, name(1), tcp(80, 80)));
    assert_eq!(longest_path(&folded(tiers)), 3, "an exact set before them");
}

#[test]
fn what_audited_policies_are_asked_comes_on_top() {
    let tiers = Tiers {
        network: vec![rule(Action::Allow, name(0), tcp(443, 443))],
        ..Tiers::default()
    };
    let program = KernelProgram::new(&Program {
        enforced: tiers.clone(),
        audited: Some(tiers),
        ..Program::default()
    });
    assert_eq!(longest_path(&program), 2);
}

#[test]
fn a_program_without_rules_is_one_verdict() {
    let chains = chains(Direction::Egress, ProgramId(1), &folded(Tiers::default()));
    let names: Vec<&str> = chains.iter().map(|chain| &*chain.name).collect();
    assert_eq!(names, ["ep4-0000000000000001", "ep6-0000000000000001"]);
    let always = NftRule {
        test: RuleMatch::Always,
        verdict: Some(objects::NftVerdict::Return),
    };
    assert!(chains.iter().all(|chain| chain.rules == [always.clone()]));
}

#[test]
fn chains_stand_before_those_that_call_them() {
    let mut known: Vec<Arc<str>> = Vec::new();
    for chain in chains(Direction::Egress, ProgramId(1), &folded(everything(3))) {
        for rule in &chain.rules {
            let mut verdicts: Vec<&objects::NftVerdict> = rule.verdict.iter().collect();
            if let RuleMatch::In(_, RuleLookup::Verdicts(pairs)) = &rule.test {
                verdicts.extend(pairs.iter().map(|(_, verdict)| verdict));
            }
            for verdict in verdicts {
                if let objects::NftVerdict::Goto(callee) = verdict {
                    assert!(known.contains(callee) || **callee == *refusal::CHAIN, "{callee}");
                }
            }
        }
        known.push(chain.name);
    }
}
