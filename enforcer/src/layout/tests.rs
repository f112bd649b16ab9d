use policy::program::NameRule;
use proptest::prelude::*;

use super::*;
use Protocol::{Sctp, Tcp, Udp};

const ID: ProgramId = ProgramId(0x00ab_cdef_0123_4567);

#[test]
fn a_set_is_named_by_side_family_program_and_group() {
    let set = |side, family, kind| SetId {
        program: ID,
        side,
        kind,
        family,
    };
    let exact = set(Side::Allow, Family::V4, SetKind::Exact);
    assert_eq!(exact.to_string(), "allow4-00abcdef01234567");
    let group = set(Side::Deny, Family::V6, SetKind::Group(12));
    assert_eq!(group.to_string(), "deny6-00abcdef01234567-g12");
    let longest = set(Side::Allow, Family::V6, SetKind::Group(u16::MAX));
    assert!(longest.to_string().len() <= 31, "old kernels cut longer names");
}

proptest! {
    #[test]
    fn every_set_name_reads_back(program: u64, deny: bool, v6: bool, group: Option<u16>) {
        let set = SetId {
            program: ProgramId(program),
            side: if deny { Side::Deny } else { Side::Allow },
            kind: group.map_or(SetKind::Exact, SetKind::Group),
            family: if v6 { Family::V6 } else { Family::V4 },
        };
        prop_assert_eq!(set.to_string().parse(), Ok(set));
    }

    #[test]
    fn whatever_reads_as_a_set_is_spelt_as_that_set(name in "(allow|deny)[46]-[0-9a-fA-F+]{0,17}(-g?[0-9+]{0,6})?(-.?)?") {
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
        "allow4-00abcdef01234567-g",
        "allow4-00abcdef01234567-g01",
        "allow4-00abcdef01234567-g65536",
        "allow4-00abcdef01234567-g1-p",
    ] {
        assert_eq!(name.parse::<SetId>(), Err(NotALearnedSet(name.to_owned())));
    }
}

#[test]
fn few_ports_go_to_the_exact_set_one_by_one() {
    let ports = ranges(&[(Tcp, 80, 80), (Tcp, 8000, 8015), (Udp, 443, 443)]);
    let Some((SetKind::Exact, single)) = Groups::default().place(&ports) else {
        panic!("{ports:?} is no group");
    };
    assert_eq!(single.len(), 18);
    assert_eq!(
        (single[0], single[1], single[16], single[17]),
        ((Tcp, 80), (Tcp, 8000), (Tcp, 8015), (Udp, 443))
    );
}

#[test]
fn a_wide_range_or_many_ports_or_every_port_makes_a_group() {
    let wide = ranges(&[(Tcp, 80, 80), (Tcp, 8000, 8016)]);
    let many = PortSet::Ranges((0..65).map(|n| PortRange::single(Sctp, n * 2)).collect());
    let just_few_enough = PortSet::Ranges((0..64).map(|n| PortRange::single(Sctp, n * 2)).collect());
    let mut groups = Groups::default();
    for (ports, number) in [(&wide, 0), (&PortSet::All, 1), (&many, 2), (&wide, 0), (&many, 2)] {
        assert_eq!(groups.place(ports), Some((SetKind::Group(number), Ports::new())));
    }
    assert!(matches!(groups.place(&just_few_enough), Some((SetKind::Exact, ports)) if ports.len() == 64));
}

#[test]
fn the_last_port_does_not_overflow() {
    let all_of_tcp = ranges(&[(Tcp, 0, u16::MAX)]);
    assert_eq!(every_port(&all_of_tcp).count(), 65_536);
    assert_eq!(as_single_ports(&all_of_tcp), None);
    let last = ranges(&[(Tcp, u16::MAX - 1, u16::MAX)]);
    assert_eq!(as_single_ports(&last).map(|ports| ports.len()), Some(2));
}

#[test]
fn each_half_has_its_own_groups_in_the_order_of_its_rules() {
    let wide = ranges(&[(Udp, 1, 1000)]);
    let single = ranges(&[(Tcp, 443, 443)]);
    let nothing = PortSet::Ranges(vec![]);
    let program = Program {
        deny: named([("a.example", wide.clone())]),
        allow: named([
            ("a.example", PortSet::All),
            ("b.example", single),
            ("c.example", wide.clone()),
            ("d.example", PortSet::All),
            ("e.example", nothing),
        ]),
        ..Program::default()
    };
    let kinds: Vec<_> = targets(ID, &program)
        .into_iter()
        .map(|(pattern, target)| (pattern.to_string(), target.side, target.kind))
        .collect();
    let expected = [
        ("a.example", Side::Deny, SetKind::Group(0)),
        ("a.example", Side::Allow, SetKind::Group(0)),
        ("b.example", Side::Allow, SetKind::Exact),
        ("c.example", Side::Allow, SetKind::Group(1)),
        ("d.example", Side::Allow, SetKind::Group(0)),
    ]
    .map(|(name, side, kind)| (name.to_owned(), side, kind));
    assert_eq!(kinds, expected);

    let sets = LearnedSets::of(&program.allow);
    let used: Vec<_> = sets.kinds_with_ports().collect();
    assert_eq!(
        used,
        [
            (SetKind::Exact, None),
            (SetKind::Group(0), Some(&PortSet::All)),
            (SetKind::Group(1), Some(&wide)),
        ]
    );
}

#[test]
fn an_address_needs_one_element_for_each_port_or_one_in_a_group() {
    let program = Program {
        allow: named([("a.example", ranges(&[(Tcp, 80, 81)])), ("b.example", PortSet::All)]),
        ..Program::default()
    };
    let targets = targets(ID, &program);
    let keys = |target: &Target, address: &str| -> Vec<_> {
        let elements = target.elements(address.parse().unwrap());
        elements
            .map(|element| (element.set.to_string(), element.key.port))
            .collect()
    };
    let set = |name: &str| name.to_owned();
    assert_eq!(
        keys(&targets[0].1, "192.0.2.1"),
        [
            (set("allow4-00abcdef01234567"), Some((Tcp, 80))),
            (set("allow4-00abcdef01234567"), Some((Tcp, 81)))
        ]
    );
    assert_eq!(
        keys(&targets[1].1, "2001:db8::1"),
        [(set("allow6-00abcdef01234567-g0"), None)]
    );
}

fn ranges(ranges: &[(Protocol, u16, u16)]) -> PortSet {
    let range = |&(protocol, first, last)| PortRange { protocol, first, last };
    PortSet::Ranges(ranges.iter().map(range).collect())
}

fn named<const N: usize>(names: [(&str, PortSet); N]) -> Rules {
    let names = names.map(|(name, ports)| NameRule {
        pattern: Pattern::name(name).unwrap(),
        ports,
        origins: vec![],
    });
    Rules {
        prefixes: vec![],
        names: names.into(),
    }
}
