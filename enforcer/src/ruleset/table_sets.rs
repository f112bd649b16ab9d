//! The sets that the whole table uses, beside the learned ones: which programs govern an address,
//! whose lookups are intercepted, where an address lies.
//!
//! Rules only refer to these sets. When pods, nodes and resolvers come and go, only elements
//! change, in one small transaction.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::{Direction, ProgramId, Protocol};

use crate::desired::{DesiredState, ResolverBinding};
use crate::layout::{ALIVE_SET, IpFamily};
use crate::netlink::objects::{
    Datatype, MapValue, MapValueType, NewElement, NftVerdict, SetSpec, TableCommand, half_open,
};
use crate::netlink::set_key::{KeyRange, SetKey, address_key};
use crate::netlink::table_snapshot::RawElement;
use crate::pod_links::PodLinks;
use crate::records::RecordedVerdict;

use super::{chain_names, handover, refusal, set_names, zones};

/// The contents of a set.
#[derive(Debug, PartialEq, Eq)]
enum SetContent {
    Elements(BTreeMap<SetKey, Option<MapValue>>),
    Ranges(Vec<KeyRange>),
}

/// The names and declarations of all these sets.
pub(crate) fn forms() -> Vec<(Arc<str>, SetSpec)> {
    let mut forms = vec![(
        Arc::from(ALIVE_SET),
        SetSpec {
            timeouts: true,
            ..form([Datatype::Protocol], None)
        },
    )];
    for links in [set_names::POD_LINKS, set_names::GOVERNED_LINKS, set_names::SHARED_LINKS] {
        forms.push((links.into(), form([Datatype::Link], None)));
    }
    for family in IpFamily::BOTH {
        let address = Datatype::Address(family);
        let socket = [address, Datatype::Port];
        let maps_to = |datatype| Some(MapValueType::Value(datatype));
        let ranges = || SetSpec {
            ranges: true,
            ..form([address], None)
        };
        let verdicts = |direction| {
            let name = set_names::dispatch(direction, family);
            (name.into(), form([address], Some(MapValueType::Verdict)))
        };
        forms.extend(Direction::BOTH.map(verdicts));
        forms.extend(RecordedVerdict::BOTH.map(|verdict| {
            let senders = SetSpec {
                timeouts: true,
                size: Some(refusal::METERED_SOURCES),
                meter: Some(refusal::SOURCE_METER),
                ..form([address], None)
            };
            (set_names::recorded(verdict, family).into(), senders)
        }));
        for name in [set_names::handover, set_names::resumed] {
            let maps = Direction::BOTH.map(|direction| name(direction, family));
            forms.extend(maps.map(|name| (name.into(), form([address], Some(MapValueType::Verdict)))));
        }
        forms.extend(Direction::BOTH.map(|direction| {
            let name = set_names::handover_services(direction, family);
            (name.into(), form([address, Datatype::Protocol, Datatype::Port], None))
        }));
        forms.extend([
            (
                set_names::handover_address(family).into(),
                form([Datatype::Protocol], maps_to(address)),
            ),
            (
                set_names::handover_port(family).into(),
                form([Datatype::Protocol], maps_to(Datatype::Port)),
            ),
        ]);
        forms.extend([
            (set_names::unknown(family).into(), ranges()),
            (
                set_names::link_sources(family).into(),
                form([Datatype::Link, address], None),
            ),
            (set_names::link_networks(family).into(), ranges()),
            (set_names::servers(family).into(), form(socket, None)),
            (set_names::ends(family).into(), form([address, address], None)),
            (set_names::cluster(family).into(), ranges()),
            (set_names::host(family).into(), form([address], None)),
            (set_names::pods(family).into(), form([address], None)),
            (set_names::resolvers(family).into(), form(socket, None)),
            (set_names::resolver_hosts(family).into(), form([address], None)),
            (set_names::listeners(family).into(), form(socket, None)),
            (
                set_names::listener_address(family).into(),
                form(socket, maps_to(address)),
            ),
            (
                set_names::listener_port(family).into(),
                form(socket, maps_to(Datatype::Port)),
            ),
        ]);
    }
    forms
}

fn form<const N: usize>(key: [Datatype; N], maps_to: Option<MapValueType>) -> SetSpec {
    SetSpec {
        key: key.to_vec(),
        maps_to,
        ranges: false,
        timeouts: false,
        swept: None,
        size: None,
        meter: None,
    }
}

/// The commands that make these sets hold what `desired` says. `before` is what they hold; without
/// it they are written anew.
pub(crate) fn changes(before: Option<&DesiredState>, desired: &DesiredState) -> Vec<TableCommand> {
    let mut commands = Vec::new();
    // Most changes are of members, and a large cluster has thousands of ranges.
    if before.is_some_and(|before| have_the_same_contents(before, desired)) {
        return commands;
    }
    let mut before = before.map(|before| contents(before).into_iter());
    for (name, after) in contents(desired) {
        let before = before.as_mut().and_then(Iterator::next).map(|(_, content)| content);
        change(&name.into(), before, after, &mut commands);
    }
    commands
}

/// Whether two states have the same elements in these sets: they may differ in what programs do and
/// in their members alone.
fn have_the_same_contents(a: &DesiredState, b: &DesiredState) -> bool {
    let DesiredState {
        table,
        programs: _,
        members: _,
        dispatch,
        local_host,
        intercepted,
        resolvers,
        listening,
        interception,
        fail_mode,
        cluster,
        host,
        pod_links,
        servers,
        unknown,
        refusal,
        handover,
        inspected_services,
        records,
        capacity,
    } = a;
    *table == b.table
        && (dispatch, *local_host) == (&b.dispatch, b.local_host)
        && *intercepted == b.intercepted
        && *resolvers == b.resolvers
        && *listening == b.listening
        && (*interception, *fail_mode) == (b.interception, b.fail_mode)
        && *cluster == b.cluster
        && *host == b.host
        && *pod_links == b.pod_links
        && *servers == b.servers
        && *unknown == b.unknown
        && (handover, inspected_services) == (&b.handover, &b.inspected_services)
        && (*refusal, *records, *capacity) == (b.refusal, b.records, b.capacity)
}

/// The elements that each of these sets should hold, as the kernel lists them. The heartbeat's set
/// is left out, because every agent of this node writes to it.
pub(crate) fn entries(desired: &DesiredState) -> Vec<(String, BTreeMap<RawElement, Option<MapValue>>)> {
    let contents = contents(desired).into_iter();
    let entries = contents.map(|(name, content)| {
        let elements = written(content).into_iter().map(|element| {
            let entry = RawElement {
                key: element.key,
                ends_range: element.ends_range,
            };
            (entry, element.value)
        });
        (name, elements.collect())
    });
    entries.collect()
}

/// The commands that write one of these sets anew, if it is one of them.
pub(crate) fn rewritten(desired: &DesiredState, set: &str) -> Vec<TableCommand> {
    let mut commands = Vec::new();
    let contents = contents(desired).into_iter();
    for (name, content) in contents.filter(|(name, _)| name == set) {
        change(&name.into(), None, content, &mut commands);
    }
    commands
}

/// Always in the same order.
fn contents(desired: &DesiredState) -> Vec<(String, SetContent)> {
    let PodLinks {
        links,
        governed,
        shared,
        ..
    } = &desired.pod_links;
    let of_both = [
        (set_names::POD_LINKS, links),
        (set_names::GOVERNED_LINKS, governed),
        (set_names::SHARED_LINKS, shared),
    ]
    .map(|(name, links)| {
        let keys = links.iter().map(|link| (link_key(*link), None));
        (name.to_owned(), SetContent::Elements(keys.collect()))
    });
    let of_families = IpFamily::BOTH
        .into_iter()
        .flat_map(|family| contents_of(desired, family));
    of_both.into_iter().chain(of_families).collect()
}

fn contents_of(desired: &DesiredState, family: IpFamily) -> Vec<(String, SetContent)> {
    let of_family = move |address: &&IpAddr| IpFamily::of(**address) == family;
    let plain = |addresses: &mut dyn Iterator<Item = &IpAddr>| {
        SetContent::Elements(addresses.map(|address| (address_key(*address), None)).collect())
    };
    let bindings = bindings(desired, family);
    let by_asked = |value: fn(&ResolverBinding) -> Option<MapValue>| {
        let pairs = bindings
            .iter()
            .map(|binding| (socket_key(binding.asked), value(binding)));
        SetContent::Elements(pairs.collect())
    };
    let behind_links = desired.pod_links.sources.iter();
    let behind_links = behind_links.filter(|(_, address)| IpFamily::of(*address) == family);
    let behind_links = behind_links.map(|(link, address)| {
        let mut key = link_key(*link);
        key.extend_from_slice(&address_key(*address));
        (key, None)
    });
    let networks = desired.pod_links.networks.iter().copied();
    let servers_known = desired.servers.iter();
    let servers_known = servers_known.filter(|server| IpFamily::of(server.ip()) == family);
    let governed = desired.intercepted.iter().filter(of_family);
    let ends_of_flows = governed.map(|address| {
        let mut key = address_key(*address);
        key.extend_from_slice(&address_key(*address));
        (key, None)
    });
    let hosts = bindings.iter().map(|binding| binding.asked.ip());
    let listeners = bindings.iter().map(|binding| (socket_key(binding.listener), None));
    let of_directions = Direction::BOTH.map(|direction| {
        let verdicts = verdicts(desired, direction, family);
        (set_names::dispatch(direction, family), SetContent::Elements(verdicts))
    });
    let mut contents = Vec::from(of_directions);
    contents.extend(of_handover(desired, family));
    contents.extend([
        (
            set_names::unknown(family),
            SetContent::Ranges(zones::ranges(desired.unknown.iter().copied(), family)),
        ),
        (
            set_names::link_sources(family),
            SetContent::Elements(behind_links.collect()),
        ),
        (
            set_names::link_networks(family),
            SetContent::Ranges(zones::ranges(networks, family)),
        ),
        (
            set_names::servers(family),
            SetContent::Elements(servers_known.map(|server| (socket_key(*server), None)).collect()),
        ),
        (set_names::ends(family), SetContent::Elements(ends_of_flows.collect())),
        (
            set_names::cluster(family),
            SetContent::Ranges(zones::cluster_ranges(desired, family)),
        ),
        (
            set_names::host(family),
            plain(&mut desired.host.iter().filter(of_family)),
        ),
        (
            set_names::pods(family),
            plain(&mut desired.intercepted.iter().filter(of_family)),
        ),
        (set_names::resolvers(family), by_asked(|_| None)),
        (
            set_names::resolver_hosts(family),
            SetContent::Elements(hosts.map(|host| (address_key(host), None)).collect()),
        ),
        (set_names::listeners(family), SetContent::Elements(listeners.collect())),
        (
            set_names::listener_address(family),
            by_asked(|binding| Some(MapValue::Data(address_key(binding.listener.ip())))),
        ),
        (
            set_names::listener_port(family),
            by_asked(|binding| {
                Some(MapValue::Data(SetKey::from_slice(
                    &binding.listener.port().to_be_bytes(),
                )))
            }),
        ),
    ]);
    contents
}

/// What hands connections over, and where to.
fn of_handover(desired: &DesiredState, family: IpFamily) -> Vec<(String, SetContent)> {
    let mut contents = Vec::new();
    for direction in Direction::BOTH {
        let inspecting = |chain: fn(Direction, ProgramId, IpFamily) -> String| {
            let of_family = desired.dispatch[direction].iter();
            let of_family = of_family.filter(|(address, _)| IpFamily::of(**address) == family);
            let inspecting = of_family.filter(|(_, id)| {
                let program = desired.programs.get(*id);
                desired.handover.is_some() && program.is_some_and(|program| program.inspects())
            });
            let verdicts = inspecting.map(|(address, id)| {
                let verdict = NftVerdict::Goto(chain(direction, *id, family).into());
                (address_key(*address), Some(MapValue::Verdict(verdict)))
            });
            verdicts.collect::<BTreeMap<_, _>>()
        };
        let services = desired.inspected_services[direction].iter();
        let services = services.filter(|at| desired.handover.is_some() && IpFamily::of(at.ip()) == family);
        let mut handing_over = inspecting(chain_names::handover);
        // At egress the chains of programs look these up.
        for service in services.clone().filter(|_| direction == Direction::Ingress) {
            let verdict = MapValue::Verdict(NftVerdict::Goto(handover::TO_SERVICES.into()));
            let address = address_key(service.ip());
            handing_over.entry(address).or_insert(Some(verdict));
        }
        let resuming = inspecting(chain_names::resumed);
        contents.extend([
            (
                set_names::handover(direction, family),
                SetContent::Elements(handing_over),
            ),
            (set_names::resumed(direction, family), SetContent::Elements(resuming)),
            (
                set_names::handover_services(direction, family),
                SetContent::Elements(services.map(|at| (tcp_key(*at), None)).collect()),
            ),
        ]);
    }
    let listener = desired.handover.as_ref().and_then(|handover| handover.listener(family));
    let tcp = SetKey::from_slice(&[Protocol::Tcp.number()]);
    let mapped = |value: Option<SetKey>| {
        let pairs = value.map(|value| (tcp.clone(), Some(MapValue::Data(value))));
        SetContent::Elements(pairs.into_iter().collect())
    };
    contents.push((
        set_names::handover_address(family),
        mapped(listener.map(|listener| address_key(listener.ip()))),
    ));
    contents.push((
        set_names::handover_port(family),
        mapped(listener.map(|listener| SetKey::from_slice(&listener.port().to_be_bytes()))),
    ));
    contents
}

/// The bindings of a family, sorted; of each resolver one.
fn bindings(desired: &DesiredState, family: IpFamily) -> Vec<ResolverBinding> {
    let mut bindings: Vec<_> = desired
        .resolvers
        .iter()
        .copied()
        .filter(|binding| IpFamily::of(binding.asked.ip()) == family && IpFamily::of(binding.listener.ip()) == family)
        .collect();
    // A map refuses a second value for a key.
    bindings.sort_unstable();
    bindings.dedup_by_key(|binding| binding.asked);
    bindings
}

fn verdicts(desired: &DesiredState, direction: Direction, family: IpFamily) -> BTreeMap<SetKey, Option<MapValue>> {
    let of_family = desired.dispatch[direction].iter();
    let of_family = of_family.filter(|(address, _)| IpFamily::of(**address) == family);
    let verdicts = of_family.map(|(address, id)| {
        // A program that is not there cannot allow anything.
        let chain = match desired.programs.contains_key(id) {
            true => chain_names::program(direction, *id, family),
            false => refusal::chain(direction, None).to_owned(),
        };
        let verdict = MapValue::Verdict(NftVerdict::Goto(chain.into()));
        (address_key(*address), Some(verdict))
    });
    verdicts.collect()
}

pub(super) fn link_key(link: u32) -> SetKey {
    SetKey::from_slice(&link.to_ne_bytes())
}

fn socket_key(socket: SocketAddr) -> SetKey {
    let mut key = address_key(socket.ip());
    let [high, low] = socket.port().to_be_bytes();
    key.extend_from_slice(&[high, low, 0, 0]);
    key
}

/// Address, protocol and port.
fn tcp_key(socket: SocketAddr) -> SetKey {
    let mut key = address_key(socket.ip());
    let [high, low] = socket.port().to_be_bytes();
    key.extend_from_slice(&[Protocol::Tcp.number(), 0, 0, 0, high, low, 0, 0]);
    key
}

fn change(name: &Arc<str>, before: Option<SetContent>, after: SetContent, commands: &mut Vec<TableCommand>) {
    if before.as_ref() == Some(&after) {
        return;
    }
    match (before, after) {
        (Some(SetContent::Elements(before)), SetContent::Elements(after)) => {
            // An element that is mapped to something else is deleted and added; packets see only
            // the outcome.
            let changed = |(key, value): &(&SetKey, &Option<MapValue>)| after.get(*key) != Some(*value);
            let gone: Vec<SetKey> = before.iter().filter(changed).map(|(key, _)| key.clone()).collect();
            let new = after.into_iter().filter(|(key, value)| before.get(key) != Some(value));
            let new: Vec<NewElement> = new.map(element).collect();
            if !gone.is_empty() {
                commands.push(TableCommand::DeleteElements(Arc::clone(name), gone));
            }
            add(name, new, commands);
        }
        (_, after) => {
            commands.push(TableCommand::EmptySet(Arc::clone(name)));
            add(name, written(after), commands);
        }
    }
}

/// All elements of a set.
fn written(content: SetContent) -> Vec<NewElement> {
    match content {
        SetContent::Elements(elements) => elements.into_iter().map(element).collect(),
        SetContent::Ranges(ranges) => half_open(ranges.iter().map(|range| (range, None))),
    }
}

fn element((key, value): (SetKey, Option<MapValue>)) -> NewElement {
    NewElement {
        value,
        ..NewElement::plain(key)
    }
}

fn add(name: &Arc<str>, elements: Vec<NewElement>, commands: &mut Vec<TableCommand>) {
    if !elements.is_empty() {
        commands.push(TableCommand::AddElements(Arc::clone(name), elements));
    }
}
