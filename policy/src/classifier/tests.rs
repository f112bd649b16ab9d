use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use names::Name;
use proptest::prelude::*;

use super::*;
use crate::extensions::LeaseTerms;
use crate::inventory::{Inventory, InventoryPod, PodIndex};
use crate::labels::{LabelSelector, Labels, Requirement};
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
            .filter(|(index, _)| self.is_meant_by(&classifier.rules()[*index].peer));
        let learned = names.flat_map(|(index, _)| classifier.entries_for_name(index, at));
        let member = if objects.is_empty() {
            ClassifierEntries::new()
        } else {
            classifier.entries_for_objects(at)
        };
        learned.chain(member).collect()
    }

    /// What stands in the sets of rules that are shared.
    fn shared_entries(&self, classifier: &Classifier) -> Vec<ClassifierEntry> {
        let shared = classifier.shared().iter().filter_map(|shared| {
            let rule = &classifier.rules()[shared.index];
            self.is_meant_by(&rule.peer).then(|| ClassifierEntry {
                class: shared.class,
                ports: rule.ports.clone(),
            })
        });
        shared.collect()
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
    entries.extend(target.shared_entries(&classifier));
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
        tiers in tiers(),
        target in target(),
        traffic in traffic(),
    ) {
        let classifier = Classifier::sharing(&tiers);
        let mut entries = target.entries(&classifier);
        entries.extend(target.shared_entries(&classifier));
        let verdict = classifier.verdict(address(target.last), target.zone, entries.iter(), traffic);
        let expected = target.plainly(&tiers, traffic);
        let narrowed = traffic.is_none() && expected == Verdict::Allow && !tiers.admin.is_empty();
        prop_assert!(verdict == expected || narrowed, "{verdict:?}, not {expected:?}, by {entries:#?} and {:#?}", classifier.shared());
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
    fn entries_are_made_of_what_the_layout_names(tiers in tiers(), target in target(), shares: bool) {
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
