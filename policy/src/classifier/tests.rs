use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use names::Name;
use proptest::prelude::*;

use super::*;
use crate::extensions::LeaseTerms;
use crate::inventory::{Inventory, InventoryPod, PodIndex};
use crate::labels::{LabelSelector, Labels, Requirement};
use crate::name_group::NameGroup;
use crate::peer_selector::ObjectSelector;
use crate::policy_id::{PolicyId, PolicyKind};
use crate::program::Origin;
use crate::zone::Zone;

/// The addresses are 10.0.0.0 to 10.0.0.7, the names n0 to n2, the objects o0 to o2.
const ADDRESSES: u8 = 8;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn ports() -> impl Strategy<Value = PortSet> {
    let ranges = [
        (Protocol::Tcp, 80, 80),
        (Protocol::Tcp, 80, 200),
        (Protocol::Udp, 53, 53),
        (Protocol::Icmp, 8, 8),
    ];
    let range =
        prop::sample::select(ranges.to_vec()).prop_map(|(protocol, first, last)| PortRange { protocol, first, last });
    prop_oneof![1 => Just(PortSet::All), 3 => prop::collection::vec(range, 1..3).prop_map(PortSet::from_ranges)]
}

fn traffic() -> impl Strategy<Value = Option<(Protocol, u16)>> {
    prop::sample::select(vec![
        Some((Protocol::Tcp, 80)),
        Some((Protocol::Tcp, 81)),
        Some((Protocol::Tcp, 443)),
        Some((Protocol::Udp, 53)),
        Some((Protocol::Icmp, 8)),
        Some((Protocol::Icmp, 0)),
        None,
    ])
}

fn prefix() -> impl Strategy<Value = Peer> {
    let zones = [Zone::Anywhere, Zone::World, Zone::Cluster, Zone::Host];
    let lengths = prop_oneof![1 => Just(0_u8), 4 => 28_u8..=32];
    (prop::sample::select(zones.to_vec()), 0..ADDRESSES, lengths).prop_map(|(zone, last, length)| {
        let prefix = Ipv4Net::new([10, 0, 0, last].into(), length).unwrap().trunc();
        Peer::Prefix(zone, IpNet::V4(prefix))
    })
}

fn name(number: u8) -> Peer {
    Peer::Name(Pattern::name(&format!("n{number}.example")).unwrap())
}

fn object(number: u8) -> Peer {
    let requirements = vec![Requirement::equals("app", &format!("o{number}"))];
    Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }))
}

fn rule(action: Action, peer: Peer, ports: PortSet) -> Rule {
    Rule {
        action,
        peer,
        ports,
        named: Vec::new(),
        through: None,
        lease: LeaseTerms::default(),
        origins: Vec::new(),
    }
}

/// Of tier Admin or Baseline: names are only ever accepted, and only in tier Admin.
fn ordered(names: bool) -> impl Strategy<Value = Vec<Rule>> {
    let actions = [Action::Allow, Action::Deny, Action::Pass];
    let other = (
        prop::sample::select(actions.to_vec()),
        prop_oneof![prefix(), (0_u8..3).prop_map(object)],
        ports(),
    );
    let other = other
        .prop_map(|(action, peer, ports)| rule(action, peer, ports))
        .boxed();
    let accepted = (0_u8..3, ports()).prop_map(|(number, ports)| rule(Action::Allow, name(number), ports));
    let one = if names {
        prop_oneof![3 => other, 1 => accepted].boxed()
    } else {
        other
    };
    prop::collection::vec(one, 0..5)
}

fn network() -> impl Strategy<Value = Vec<Rule>> {
    let actions = [Action::Allow, Action::Deny];
    let peer = prop_oneof![prefix(), (0_u8..3).prop_map(object), (0_u8..3).prop_map(name)];
    let one = (prop::sample::select(actions.to_vec()), peer, ports(), 0_u8..4);
    let one = one.prop_map(|(action, peer, ports, through)| {
        let tcp = PortSet::from_ranges([PortRange::every(Protocol::Tcp)]);
        match through {
            0 if action == Action::Allow => Rule {
                through: Some(Arc::default()),
                ..rule(action, peer, ports.intersection(&tcp))
            },
            _ => rule(action, peer, ports),
        }
    });
    prop::collection::vec(one, 0..6).prop_map(|mut rules| {
        rules.sort_by_key(Rule::order);
        rules
    })
}

fn tiers() -> impl Strategy<Value = Tiers> {
    (ordered(true), network(), any::<bool>(), ordered(false)).prop_map(|(admin, network, closed, baseline)| {
        Tiers {
            admin,
            network,
            closed_by: closed.then(origin).into_iter().collect(),
            baseline,
            ..Tiers::default()
        }
        .without_void_inspection()
    })
}

/// As [`tiers`], with groups of some of the names that are let through.
fn grouped() -> impl Strategy<Value = Tiers> {
    (tiers(), prop::collection::vec(any::<bool>(), 16)).prop_map(|(mut tiers, chosen)| {
        let rules = tiers.admin.iter().map(|rule| (true, rule));
        let rules = rules.chain(tiers.network.iter().map(|rule| (false, rule)));
        let mut groups: Vec<NameGroup> = Vec::new();
        for ((is_admin, rule), is_chosen) in rules.zip(chosen) {
            let Some(pattern) = rule.plain_name().filter(|_| is_chosen) else {
                continue;
            };
            let alike = groups
                .iter_mut()
                .find(|it| (it.is_admin, &it.ports) == (is_admin, &rule.ports));
            match alike {
                Some(group) => drop(group.patterns.insert(pattern.clone())),
                None => groups.push(NameGroup {
                    is_admin,
                    patterns: BTreeSet::from([pattern.clone()]),
                    lease: rule.lease,
                    ports: rule.ports.clone(),
                }),
            }
        }
        tiers.name_groups = NameGroup::merged(groups);
        tiers
    })
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

/// What an address is: where it lies, which names resolve to it, which objects have it.
#[derive(Debug, Clone)]
struct Target {
    last: u8,
    zone: AddressZone,
    names: Vec<u8>,
    objects: Vec<u8>,
}

fn target() -> impl Strategy<Value = Target> {
    let some = || prop::collection::btree_set(0_u8..3, 0..3).prop_map(|set| set.into_iter().collect());
    (
        0..ADDRESSES,
        prop::sample::select(AddressZone::ALL.to_vec()),
        some(),
        some(),
    )
        .prop_map(|(last, zone, names, objects)| Target {
            last,
            zone,
            names,
            objects,
        })
}

impl Target {
    /// A Pod of the cluster that is object 0.
    fn pod() -> Self {
        Self {
            last: 0,
            zone: AddressZone::Cluster,
            names: Vec::new(),
            objects: vec![0],
        }
    }

    fn is_meant_by(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Prefix(zone, prefix) => self.zone.is_in(*zone) && prefix.contains(&address(self.last)),
            Peer::PodsWithin(..) => false,
            peer => self.names.iter().any(|n| name(*n) == *peer) || self.objects.iter().any(|o| object(*o) == *peer),
        }
    }

    /// Straight from the meaning of tiers.
    fn plainly(&self, tiers: &Tiers, traffic: Option<(Protocol, u16)>) -> Verdict {
        let first = |rules: &[Rule]| {
            let speaks = |rule: &&Rule| {
                self.is_meant_by(&rule.peer)
                    && match traffic {
                        Some((protocol, port)) => rule.ports.contains(protocol, port),
                        None => rule.ports == PortSet::All,
                    }
            };
            rules
                .iter()
                .find(speaks)
                .map(|rule| (rule.action, rule.through.is_some()))
        };
        for (rules, closed) in [
            (&tiers.admin, false),
            (&tiers.network, tiers.closed()),
            (&tiers.baseline, false),
        ] {
            match first(rules) {
                Some((Action::Allow, true)) => return Verdict::Inspect,
                Some((Action::Allow, false)) => return Verdict::Allow,
                Some((Action::Deny, _)) => return Verdict::Deny,
                Some((Action::Pass, _)) | None if closed => return Verdict::Deny,
                Some((Action::Pass, _)) | None => {}
            }
        }
        Verdict::Allow
    }

    /// Each name and all objects by themselves, as they come and go.
    fn entries(&self, classifier: &Classifier) -> Vec<ClassifierEntry> {
        let objects: Vec<_> = classifier
            .object_rules()
            .filter(|(_, rule)| self.is_meant_by(&rule.peer))
            .map(|(index, rule)| (index, rule.ports.clone()))
            .collect();
        let at = AddressContext {
            address: address(self.last),
            zone: self.zone,
            objects: &objects,
        };
        let names = classifier
            .name_rules()
            .filter(|(index, _)| self.is_meant_by(&classifier.rules()[*index].peer) && !classifier.is_covered(*index));
        let learned = names.flat_map(|(index, _)| classifier.entries_for_name(index, at));
        let member = if objects.is_empty() {
            ClassifierEntries::new()
        } else {
            classifier.entries_for_objects(at)
        };
        learned.chain(member).collect()
    }

    /// What stands in the sets of rules and of names that are shared, and holds this traffic.
    fn shared_entries(&self, classifier: &Classifier, traffic: Option<(Protocol, u16)>) -> Vec<ClassifierEntry> {
        let held = |names: &&SharedNames| {
            let mut patterns = names.group.patterns.iter();
            patterns.any(|pattern| self.is_meant_by(&Peer::Name(pattern.clone())))
        };
        let names = classifier.shared_names().iter().filter(held);
        let names = names.filter_map(|names| {
            let class = classifier.class_of_names(names, address(self.last), self.zone, traffic)?;
            Some(ClassifierEntry {
                class,
                ports: PortSet::All,
            })
        });
        let shared = classifier.shared().iter().filter_map(|shared| {
            let rule = &classifier.rules()[shared.index];
            self.is_meant_by(&rule.peer).then(|| ClassifierEntry {
                class: shared.class,
                ports: rule.ports.clone(),
            })
        });
        shared.chain(names).collect()
    }
}

#[test]
fn what_has_no_ports_is_refused_no_more_where_rules_are_shared() {
    let port = PortSet::from_ranges([PortRange::single(Protocol::Tcp, 80)]);
    let everywhere = Peer::Prefix(Zone::Cluster, "0.0.0.0/0".parse().unwrap());
    let tiers = Tiers {
        admin: vec![
            rule(Action::Deny, object(0), port),
            rule(Action::Allow, everywhere, PortSet::All),
            rule(Action::Deny, object(0), PortSet::All),
        ],
        ..Tiers::default()
    };
    let target = Target::pod();
    let classifier = Classifier::sharing(&tiers);
    let mut entries = target.entries(&classifier);
    entries.extend(target.shared_entries(&classifier, None));
    let verdict = classifier.verdict(address(0), target.zone, entries.iter(), None);
    assert_eq!(verdict, Verdict::Allow, "{entries:#?} {:#?}", classifier.shared());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_classifier_decides_as_its_tiers_do(tiers in tiers(), target in target(), traffic in traffic()) {
        let classifier = Classifier::new(&tiers);
        let entries = target.entries(&classifier);
        let verdict = classifier.verdict(address(target.last), target.zone, entries.iter(), traffic);
        let expected = target.plainly(&tiers, traffic);
        // What has no ports is refused where it cannot be excepted from all traffic that tier Admin
        // accepts for a name or object.
        let narrowed = traffic.is_none() && expected == Verdict::Allow && !tiers.admin.is_empty();
        prop_assert!(verdict == expected || narrowed, "{verdict:?}, not {expected:?}, by {entries:#?}");
    }

    /// A shared rule is found at each of its members alike.
    #[test]
    fn a_classifier_that_shares_rules_decides_as_its_tiers_do(
        tiers in grouped(),
        target in target(),
        traffic in traffic(),
    ) {
        let classifier = Classifier::sharing(&tiers);
        let mut entries = target.entries(&classifier);
        entries.extend(target.shared_entries(&classifier, traffic));
        let verdict = classifier.verdict(address(target.last), target.zone, entries.iter(), traffic);
        let expected = target.plainly(&tiers, traffic);
        let narrowed = traffic.is_none() && expected == Verdict::Allow && !tiers.admin.is_empty();
        prop_assert!(verdict == expected || narrowed, "{verdict:?}, not {expected:?}, by {entries:#?} and {:#?}, {:#?}", classifier.shared(), classifier.shared_names());
        if let (Verdict::Allow, None) = (expected, traffic) {
            let alone = Classifier::new(&tiers);
            let entries = target.entries(&alone);
            let unshared = alone.verdict(address(target.last), target.zone, entries.iter(), traffic);
            prop_assert!(verdict == expected || unshared != expected, "it refuses no more for want of ports");
        }
    }

    /// Who looks into connections reads the same rules.
    #[test]
    fn a_connection_is_decided_as_its_tiers_do(tiers in tiers(), target in target(), port in prop::sample::select(vec![80_u16, 81, 443])) {
        let classifier = Classifier::new(&tiers);
        let names: Vec<Name> = target.names.iter().map(|n| Name::parse(&format!("n{n}.example")).unwrap()).collect();
        let pods = target.objects.iter().map(|number| {
            let labels = Labels::from([("app".to_owned(), format!("o{number}"))]);
            InventoryPod::new(labels, [address(target.last)], Vec::new())
        });
        let inventory = Inventory { pods: PodIndex::from_iter(pods), ..Inventory::default() };
        let peer = ConnectionPeer { address: address(target.last), zone: target.zone, port, names: &names };
        let traffic = Some((Protocol::Tcp, port));
        let expected = target.plainly(&tiers, traffic);
        match classifier.connection(peer, &inventory) {
            ConnectionClass::Allowed => prop_assert_eq!(expected, Verdict::Allow),
            ConnectionClass::Denied => prop_assert_eq!(expected, Verdict::Deny),
            ConnectionClass::Inspected(rules) => {
                prop_assert_eq!(expected, Verdict::Inspect);
                let meant = classifier.rules().iter().enumerate().filter(|(_, rule)| {
                    rule.through.is_some() && target.is_meant_by(&rule.peer) && rule.ports.contains(Protocol::Tcp, port)
                });
                prop_assert_eq!(rules.to_vec(), meant.map(|(index, _)| index).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn intervals_say_what_prefixes_decide(tiers in tiers(), target in target(), traffic in traffic()) {
        let classifier = Classifier::new(&tiers);
        let target = Target { names: Vec::new(), objects: Vec::new(), ..target };
        let address = address(target.last);
        let intervals = classifier.intervals(target.zone);
        let found: Vec<_> = intervals.iter().filter(|it| it.first <= address && address <= it.last).collect();
        prop_assert!(found.len() <= 1, "they are disjoint");
        let verdict = found.first().map_or(classifier.default_verdict(), |interval| interval.verdicts.at(traffic));
        prop_assert_eq!(verdict, target.plainly(&tiers, traffic));
    }

    #[test]
    fn entries_are_made_of_what_the_layout_names(tiers in grouped(), target in target(), shares: bool) {
        let classifier = if shares { Classifier::sharing(&tiers) } else { Classifier::new(&tiers) };
        let layout = classifier.layout();
        for entry in target.entries(&classifier) {
            prop_assert!(layout.classes.contains(&entry.class), "{entry:?} {layout:?}");
            match &entry.ports {
                PortSet::All => prop_assert!(layout.all_traffic),
                PortSet::Ranges(_) => {
                    let ranges = layout.port_ranges.iter().filter(|range| entry.ports.contains(range.protocol, range.first));
                    prop_assert_eq!(PortSet::from_ranges(ranges.copied()), entry.ports);
                }
            }
        }
    }
}

/// A packet pays a lookup for each class that there are sets of.
#[test]
fn there_are_sets_of_no_class_that_only_prefixes_and_shared_rules_decide() {
    let web = || PortSet::from_ranges([PortRange::single(Protocol::Tcp, 80)]);
    let everywhere = Peer::Prefix(Zone::Anywhere, "10.0.0.0/29".parse().unwrap());
    let tiers = Tiers {
        admin: vec![
            rule(Action::Allow, object(0), PortSet::All),
            rule(Action::Deny, everywhere, web()),
        ],
        network: vec![rule(Action::Allow, name(0), web())],
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    let shares = Classifier::sharing(&tiers);
    assert_eq!(shares.shared().len(), 1);
    assert_eq!(shares.layout().classes, BTreeSet::from([SetClass::Allow]));
    let does_not = Classifier::new(&tiers);
    let all = BTreeSet::from([SetClass::Admin, SetClass::Deny, SetClass::Allow]);
    assert_eq!(does_not.layout().classes, all, "an entry for all traffic is there");
}

/// An entry for all traffic cannot be made there, since it would hide the port that is passed.
#[test]
fn what_has_no_ports_is_not_let_through_where_one_port_of_a_denied_object_is_passed() {
    let web = PortSet::from_ranges([PortRange::single(Protocol::Tcp, 80)]);
    let everywhere = Peer::Prefix(Zone::Anywhere, "0.0.0.0/0".parse().unwrap());
    let tiers = Tiers {
        admin: vec![
            rule(Action::Pass, everywhere, web),
            rule(Action::Deny, object(0), PortSet::All),
        ],
        ..Tiers::default()
    };
    let target = Target::pod();
    let classifier = Classifier::new(&tiers);
    let entries = target.entries(&classifier);
    let verdict = |traffic| classifier.verdict(address(0), target.zone, entries.iter(), traffic);
    assert_eq!(verdict(None), Verdict::Deny);
    assert_eq!(verdict(Some((Protocol::Tcp, 81))), Verdict::Deny);
    assert_eq!(verdict(Some((Protocol::Tcp, 80))), Verdict::Allow);
}

fn group(is_admin: bool, patterns: &[u8], ports: PortSet) -> NameGroup {
    let patterns = patterns.iter().map(|number| match name(*number) {
        Peer::Name(pattern) => pattern,
        other => panic!("{other:?}"),
    });
    NameGroup {
        is_admin,
        patterns: patterns.collect(),
        lease: LeaseTerms::default(),
        ports,
    }
}

/// Prefixes know nothing of what objects pass.
#[test]
fn names_are_not_shared_where_a_denied_prefix_may_be_passed_for_an_object() {
    let web = || PortSet::from_ranges([PortRange::single(Protocol::Tcp, 80)]);
    let everywhere = || Peer::Prefix(Zone::Anywhere, "0.0.0.0/0".parse().unwrap());
    let mut tiers = Tiers {
        admin: vec![
            rule(Action::Pass, object(0), web()),
            rule(Action::Deny, everywhere(), web()),
        ],
        network: vec![rule(Action::Allow, name(0), web())],
        closed_by: vec![origin()],
        name_groups: vec![group(false, &[0], web())],
        ..Tiers::default()
    };
    assert_eq!(Classifier::sharing(&tiers).shared_names().len(), 0);
    let target = Target {
        last: 0,
        zone: AddressZone::World,
        names: vec![0],
        objects: vec![0],
    };
    let classifier = Classifier::sharing(&tiers);
    let entries = target.entries(&classifier);
    let verdict = classifier.verdict(address(0), target.zone, entries.iter(), Some((Protocol::Tcp, 80)));
    assert_eq!(verdict, Verdict::Allow);
    tiers.admin[0].peer = everywhere();
    assert_eq!(Classifier::sharing(&tiers).shared_names().len(), 1);
}

#[test]
fn shared_names_need_no_sets_of_the_tiers_own_and_the_same_set_whatever_the_ports() {
    let ports = |count: u16| PortSet::from_ranges((0..count).map(|n| PortRange::single(Protocol::Tcp, 80 + 2 * n)));
    let of = |own: u8, count: u16| Tiers {
        network: vec![
            rule(Action::Allow, name(0), ports(count)),
            rule(Action::Allow, name(own), ports(1)),
        ],
        closed_by: vec![origin()],
        name_groups: vec![group(false, &[0], ports(count)), group(false, &[own], ports(1))],
        ..Tiers::default()
    };
    let sets = |tiers: &Tiers| {
        let classifier = Classifier::sharing(tiers);
        assert_eq!(*classifier.layout(), SetLayout::default());
        let names = classifier.shared_names().iter();
        let mut found: Vec<_> = names.map(|names| (names.group.patterns.len(), names.id)).collect();
        found.sort_unstable();
        found
    };
    let (a, b) = (sets(&of(1, 1)), sets(&of(2, 12)));
    assert_eq!((a.len(), b.len()), (2, 2));
    assert_eq!(a.iter().filter(|set| b.contains(set)).count(), 1);
}

/// A group that says less than a rule does not stand for it.
#[test]
fn a_rule_is_covered_only_by_groups_that_say_all_that_it_says() {
    let web = PortSet::from_ranges([PortRange::single(Protocol::Tcp, 80)]);
    let both = PortSet::from_ranges([80, 443].map(|port| PortRange::single(Protocol::Tcp, port)));
    let of = |groups: Vec<NameGroup>| {
        let tiers = Tiers {
            network: vec![rule(Action::Allow, name(0), both.clone())],
            closed_by: vec![origin()],
            name_groups: groups,
            ..Tiers::default()
        };
        Classifier::sharing(&tiers).is_covered(0)
    };
    assert!(of(vec![group(false, &[0, 1], both.clone())]));
    assert!(!of(vec![group(false, &[0], web.clone())]), "another port");
    assert!(!of(vec![group(false, &[1], both.clone())]), "another name");
    let other_lease = NameGroup {
        lease: LeaseTerms {
            grace: Some(std::time::Duration::from_secs(9)),
            ..LeaseTerms::default()
        },
        ..group(false, &[0], both.clone())
    };
    assert!(!of(vec![other_lease]), "other terms");
    let tls = PortSet::from_ranges([PortRange::single(Protocol::Tcp, 443)]);
    assert!(
        of(vec![group(false, &[0], web), group(false, &[0, 1], tls)]),
        "both together"
    );
}
