use std::collections::BTreeSet;

use Protocol::{Icmp, Icmpv6, Tcp, Udp};
use names::Pattern;
use policy::{Action, LeaseTerms, Rule, Tiers};
use proptest::prelude::*;

use super::*;

const ID: ProgramId = ProgramId(0x00ab_cdef_0123_4567);

#[test]
fn a_set_is_named_by_class_family_tiers_and_kind() {
    let set = |class, family, kind| SetId {
        program: ID,
        class,
        kind,
        family,
    };
    let exact = set(SetClass::Allow, IpFamily::V4, SetKind::Exact);
    assert_eq!(exact.to_string(), "allow4-00abcdef01234567");
    let range_number = set(SetClass::Deny, IpFamily::V6, SetKind::Range(12));
    assert_eq!(range_number.to_string(), "deny6-00abcdef01234567-c12");
    let all = set(SetClass::Rest, IpFamily::V4, SetKind::All);
    assert_eq!(all.to_string(), "rest4-00abcdef01234567-all");
    let longest = set(SetClass::Admin, IpFamily::V6, SetKind::Range(u16::MAX));
    assert!(longest.to_string().len() <= 31, "old kernels cut longer names");
}

proptest! {
    #[test]
    fn every_set_name_reads_back(
        program: u64,
        class in proptest::sample::select(&SetClass::ALL[..]),
        v6: bool,
        kind in prop_oneof![Just(SetKind::Exact), Just(SetKind::All), any::<u16>().prop_map(SetKind::Range)],
    ) {
        let set = SetId {
            program: ProgramId(program),
            class,
            kind,
            family: if v6 { IpFamily::V6 } else { IpFamily::V4 },
        };
        prop_assert_eq!(set.to_string().parse(), Ok(set));
    }

    #[test]
    fn whatever_reads_as_a_set_is_spelt_as_that_set(
        name in "(admin|allow|deny|rest)[46]-[0-9a-fA-F+]{0,17}(-(all|c?[0-9+]{0,6}))?(-.?)?",
    ) {
        if let Ok(set) = name.parse::<SetId>() {
            prop_assert_eq!(set.to_string(), name);
        }
    }
}

#[test]
fn other_names_are_no_learned_sets() {
    for name in [
        "",
        "alive",
        "cluster4",
        "allow4",
        "allow4-",
        "allow5-00abcdef01234567",
        "allow4-00ABCDEF01234567",
        "allow4-0abcdef01234567",
        "allow4-00abcdef01234567-world",
        "allow4-00abcdef01234567-g0",
        "allow4-00abcdef01234567-c",
        "allow4-00abcdef01234567-c01",
        "allow4-00abcdef01234567-c65536",
        "allow4-00abcdef01234567-c1-p",
        "allow4-00abcdef01234567-all-",
    ] {
        assert_eq!(name.parse::<SetId>(), Err(ParseSetIdError(name.to_owned())));
    }
}

fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
    PortRange { protocol, first, last }
}

fn ranges(ranges: &[PortRange]) -> PortSet {
    PortSet::Ranges(ranges.to_vec())
}

fn rule(action: Action, name: &str, ports: PortSet) -> Rule {
    Rule {
        action,
        peer: Peer::Name(Pattern::name(name).unwrap()),
        ports,
        named: vec![],
        through: None,
        lease: LeaseTerms::default(),
        origins: vec![],
    }
}

fn classifier(network: Vec<Rule>) -> Classifier {
    Classifier::new(&Tiers {
        network,
        ..Tiers::default()
    })
}

/// Rules about TCP 80, TCP 8000 to 8999, TCP 8500 to 8515, and echo requests.
fn layout() -> SetLayout {
    let rules = [
        range(Tcp, 80, 80),
        range(Tcp, 8000, 8999),
        range(Tcp, 8500, 8515),
        range(Icmp, 8, 8),
    ];
    let rules = rules.map(|range| rule(Action::Allow, "a.example", ranges(&[range])));
    classifier(rules.to_vec()).layout().clone()
}

fn allowed(layout: &SetLayout, address: &str, ports: PortSet) -> Vec<(String, Option<(Protocol, u16)>)> {
    let entry = ClassifierEntry {
        class: SetClass::Allow,
        ports,
    };
    elements(ID, layout, address.parse().unwrap(), &entry)
        .map(|element| (element.set.to_string(), element.key.port))
        .collect()
}

#[test]
fn single_ports_and_narrow_ranges_go_to_the_exact_set_one_by_one_and_wide_ones_to_their_cells() {
    let layout = layout();
    let port_ranges = [
        range(Tcp, 80, 80),
        range(Tcp, 8000, 8499),
        range(Tcp, 8500, 8515),
        range(Tcp, 8516, 8999),
        range(Icmp, 8, 8),
    ];
    assert_eq!(layout.port_ranges, port_ranges);
    let set = |suffix: &str| format!("allow4-{ID}{suffix}");
    assert_eq!(
        allowed(&layout, "192.0.2.1", ranges(&[range(Tcp, 80, 80)])),
        [(set(""), Some((Tcp, 80)))]
    );
    let wide = allowed(&layout, "192.0.2.1", ranges(&[range(Tcp, 8000, 8999)]));
    assert_eq!(wide.len(), 18);
    assert_eq!(wide[0], (set("-c1"), None));
    assert_eq!(
        (&wide[1], &wide[16]),
        (&(set(""), Some((Tcp, 8500))), &(set(""), Some((Tcp, 8515))))
    );
    assert_eq!(wide[17], (set("-c3"), None));
    assert_eq!(allowed(&layout, "192.0.2.1", PortSet::All), [(set("-all"), None)]);
}

#[test]
fn a_port_that_a_container_names_goes_to_the_exact_set_though_it_lies_in_a_wide_range() {
    let found = allowed(&layout(), "2001:db8::1", ranges(&[range(Tcp, 8080, 8080)]));
    assert_eq!(found, [(format!("allow6-{ID}"), Some((Tcp, 8080)))]);
}

#[test]
fn types_of_messages_are_cells_of_the_addresses_that_they_go_to() {
    let layout = layout();
    let echo = || ranges(&[range(Icmp, 8, 8)]);
    assert_eq!(
        allowed(&layout, "192.0.2.1", echo()),
        [(format!("allow4-{ID}-c4"), None)]
    );
    assert_eq!(allowed(&layout, "2001:db8::1", echo()), []);
    let kinds = |family| kinds(&layout, family).collect::<Vec<_>>();
    let common = [SetKind::Exact, SetKind::Range(1), SetKind::Range(3)];
    assert_eq!(kinds(IpFamily::V6), common);
    assert_eq!(kinds(IpFamily::V4), [&common[..], &[SetKind::Range(4)]].concat());
}

#[test]
fn the_last_port_does_not_overflow() {
    let every = classifier(vec![rule(
        Action::Allow,
        "a.example",
        ranges(&[range(Tcp, 0, u16::MAX)]),
    )]);
    let found = allowed(every.layout(), "192.0.2.1", ranges(&[range(Tcp, 0, u16::MAX)]));
    assert_eq!(found, [(format!("allow4-{ID}-c0"), None)]);
    let last = ranges(&[range(Tcp, u16::MAX - 1, u16::MAX)]);
    assert_eq!(allowed(every.layout(), "192.0.2.1", last).len(), 2);
}

#[test]
fn every_element_of_a_possible_entry_has_its_set() {
    let network = vec![
        rule(
            Action::Deny,
            "bad.example",
            ranges(&[range(Udp, 0, 100), range(Icmpv6, 128, 129)]),
        ),
        rule(Action::Allow, "all.example", PortSet::All),
        rule(Action::Allow, "one.example", ranges(&[range(Tcp, 443, 443)])),
    ];
    let classifier = classifier(network);
    let layout = classifier.layout();
    for address in ["192.0.2.1", "2001:db8::1"] {
        let address: IpAddr = address.parse().unwrap();
        let known: BTreeSet<SetId> = sets(ID, layout, IpFamily::of(address)).collect();
        let at = AddressContext {
            address,
            zone: AddressZone::World,
            objects: &[],
        };
        for (index, _) in classifier.name_rules() {
            for entry in classifier.entries_for_name(index, at) {
                for element in elements(ID, layout, address, &entry) {
                    assert!(known.contains(&element.set), "{}", element.set);
                }
            }
        }
    }
}

#[test]
fn what_is_prepared_is_what_each_address_would_get() {
    let web = || ranges(&[range(Tcp, 80, 80), range(Tcp, 8000, 8999)]);
    let folds = [
        classifier(vec![
            rule(Action::Allow, "a.example", web()),
            rule(Action::Allow, "b.example", PortSet::All),
        ]),
        classifier(vec![
            rule(Action::Deny, "a.example", web()),
            rule(Action::Allow, "b.example", PortSet::All),
        ]),
    ];
    for classifier in folds {
        for (index, _) in classifier.name_rules() {
            let prepared = prepared(ID, &classifier, index).expect("there are only names");
            for address in ["192.0.2.1", "2001:db8::1"] {
                let address: IpAddr = address.parse().unwrap();
                let at = AddressContext {
                    address,
                    zone: AddressZone::Host,
                    objects: &[],
                };
                let entries = classifier.entries_for_name(index, at);
                let expected: Vec<Element> = entries
                    .iter()
                    .flat_map(|entry| elements(ID, classifier.layout(), address, entry))
                    .collect();
                let found: Vec<Element> = prepared.iter().filter_map(|target| target.element(address)).collect();
                assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn nothing_is_prepared_where_a_prefix_may_come_before_a_name() {
    let prefix = Rule {
        peer: Peer::Prefix(policy::Zone::World, "192.0.2.0/24".parse().unwrap()),
        ..rule(Action::Deny, "x.example", PortSet::All)
    };
    let name = rule(Action::Allow, "a.example", PortSet::All);
    assert_eq!(prepared(ID, &classifier(vec![prefix.clone(), name.clone()]), 1), None);
    let allowing = Rule {
        action: Action::Allow,
        ..prefix
    };
    assert!(prepared(ID, &classifier(vec![allowing, name]), 1).is_some());
}
