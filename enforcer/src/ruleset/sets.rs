//! The sets of the whole table, beside the learned ones: who is governed by what, whose lookups are
//! intercepted, where addresses lie.
//!
//! Rules only refer to them. When pods, nodes and resolvers come and go, these follow by elements,
//! in one small transaction.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::desired::{DesiredState, ResolverBinding};
use crate::layout::{ALIVE_SET, IpFamily};
use crate::netlink::batch::SetKey;
use crate::netlink::objects::{
    Datatype, KeyRange, MapValue, MapValueType, NewElement, NftVerdict, SetSpec, TableCommand, half_open,
};
use crate::netlink::snapshot::RawElement;
use crate::pod_links::PodLinks;

use super::program::{address_key, chain_name};
use super::{interception, refusal, zones};

/// The map from source addresses to the chains of their programs.
pub(super) fn dispatch(family: IpFamily) -> String {
    format!("dispatch{family}")
}

/// The sources that are refused although no program governs them.
pub(super) fn unknown(family: IpFamily) -> String {
    format!("unknown{family}")
}

/// The links that lead to local pods.
pub(super) const POD_LINKS: &str = "pod-links";
/// Those among them that lead to governed ones.
pub(super) const GOVERNED_LINKS: &str = "governed-links";
/// Those among them on which [`link_networks`] may be.
pub(super) const SHARED_LINKS: &str = "shared-links";

/// Links and the known addresses behind each.
pub(super) fn link_sources(family: IpFamily) -> String {
    format!("link-sources{family}")
}

/// Where unknown pods of shared links may be.
pub(super) fn link_networks(family: IpFamily) -> String {
    format!("link-networks{family}")
}

/// The servers whose answers are believed.
pub(super) fn servers(family: IpFamily) -> String {
    format!("servers{family}")
}

/// Each governed address twice, so that one lookup tells whether two addresses are the same and
/// governed.
pub(super) fn ends(family: IpFamily) -> String {
    format!("ends{family}")
}

/// What a set holds.
#[derive(Debug, PartialEq, Eq)]
enum SetContent {
    Elements(BTreeMap<SetKey, Option<MapValue>>),
    Ranges(Vec<KeyRange>),
}

/// All of them, with their forms.
pub(crate) fn forms() -> Vec<(Arc<str>, SetSpec)> {
    let mut forms = vec![(
        Arc::from(ALIVE_SET),
        SetSpec {
            timeouts: true,
            ..form([Datatype::Protocol], None)
        },
    )];
    for links in [POD_LINKS, GOVERNED_LINKS, SHARED_LINKS] {
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
        forms.extend([
            (dispatch(family).into(), form([address], Some(MapValueType::Verdict))),
            (unknown(family).into(), ranges()),
            (link_sources(family).into(), form([Datatype::Link, address], None)),
            (link_networks(family).into(), ranges()),
            (servers(family).into(), form(socket, None)),
            (ends(family).into(), form([address, address], None)),
            (zones::cluster(family).into(), ranges()),
            (zones::host(family).into(), form([address], None)),
            (interception::pods_set(family).into(), form([address], None)),
            (interception::resolvers_set(family).into(), form(socket, None)),
            (interception::resolver_hosts_set(family).into(), form([address], None)),
            (interception::listeners_set(family).into(), form(socket, None)),
            (interception::address_map(family).into(), form(socket, maps_to(address))),
            (
                interception::port_map(family).into(),
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
    }
}

/// The commands that make these sets hold what `desired` says. `before` is what they hold; without
/// it they are written anew.
pub(crate) fn changes(before: Option<&DesiredState>, desired: &DesiredState) -> Vec<TableCommand> {
    let mut commands = Vec::new();
    let mut before = before.map(|before| contents(before).into_iter());
    for (name, after) in contents(desired) {
        let before = before.as_mut().and_then(Iterator::next).map(|(_, content)| content);
        change(&name.into(), before, after, &mut commands);
    }
    commands
}

/// What each of these sets should hold, as the kernel tells it; but for the heartbeat's, which
/// every agent of this node writes.
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
    let of_both = [(POD_LINKS, links), (GOVERNED_LINKS, governed), (SHARED_LINKS, shared)].map(|(name, links)| {
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
    let bindings = interception::bindings(desired, family);
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
    vec![
        (dispatch(family), SetContent::Elements(verdicts(desired, family))),
        (
            unknown(family),
            SetContent::Ranges(zones::ranges(desired.unknown.iter().copied(), family)),
        ),
        (link_sources(family), SetContent::Elements(behind_links.collect())),
        (
            link_networks(family),
            SetContent::Ranges(zones::ranges(networks, family)),
        ),
        (
            servers(family),
            SetContent::Elements(servers_known.map(|server| (socket_key(*server), None)).collect()),
        ),
        (ends(family), SetContent::Elements(ends_of_flows.collect())),
        (
            zones::cluster(family),
            SetContent::Ranges(zones::cluster_ranges(desired, family)),
        ),
        (zones::host(family), plain(&mut desired.host.iter().filter(of_family))),
        (
            interception::pods_set(family),
            plain(&mut desired.intercepted.iter().filter(of_family)),
        ),
        (interception::resolvers_set(family), by_asked(|_| None)),
        (
            interception::resolver_hosts_set(family),
            SetContent::Elements(hosts.map(|host| (address_key(host), None)).collect()),
        ),
        (
            interception::listeners_set(family),
            SetContent::Elements(listeners.collect()),
        ),
        (
            interception::address_map(family),
            by_asked(|binding| Some(MapValue::Data(address_key(binding.listener.ip())))),
        ),
        (
            interception::port_map(family),
            by_asked(|binding| {
                Some(MapValue::Data(SetKey::from_slice(
                    &binding.listener.port().to_be_bytes(),
                )))
            }),
        ),
    ]
}

fn verdicts(desired: &DesiredState, family: IpFamily) -> BTreeMap<SetKey, Option<MapValue>> {
    let sources = desired
        .dispatch
        .iter()
        .filter(|(source, _)| IpFamily::of(**source) == family);
    let verdicts = sources.map(|(source, id)| {
        // A program that is not there cannot allow anything.
        let chain = match desired.programs.contains_key(id) {
            true => chain_name(*id, family),
            false => refusal::CHAIN.to_owned(),
        };
        let verdict = MapValue::Verdict(NftVerdict::Goto(chain.into()));
        (address_key(*source), Some(verdict))
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

fn change(name: &Arc<str>, before: Option<SetContent>, after: SetContent, commands: &mut Vec<TableCommand>) {
    if before.as_ref() == Some(&after) {
        return;
    }
    match (before, after) {
        (Some(SetContent::Elements(before)), SetContent::Elements(after)) => {
            // What is mapped to something else is deleted and added; packets see only the outcome.
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

/// All that a set holds.
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
