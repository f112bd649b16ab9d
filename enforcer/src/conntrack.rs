//! Conntrack entries: finds those of some addresses, deletes those that belong to earlier rules or
//! Pods, and hears of those that begin and end.

mod listener;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use policy::Protocol;

use crate::netlink::conntrack::{self as entries};
pub use crate::netlink::conntrack::{ConntrackEntry, ConntrackNews, CountedTraffic};
use crate::netlink::socket::NetfilterSocket;
pub use listener::ConntrackListener;

/// How many deletions go into one send: their acknowledgements must fit the receive buffer.
const DELETIONS: usize = 256;

/// Deletes the entries of lookups (UDP and TCP to one of `ports`) from `sources`, and returns how
/// many there were. NAT is decided once per flow, so that the next packet of such a flow meets the
/// interception rules again.
///
/// Entries for which `keep` is true stay. An answer that is on its way when its entry is deleted is
/// lost, because its source is not translated back.
pub fn delete_lookups(sources: &[IpAddr], ports: &[u16], keep: impl Fn(&ConntrackEntry) -> bool) -> io::Result<usize> {
    if ports.is_empty() {
        return Ok(0);
    }
    let sources: HashSet<IpAddr> = sources.iter().copied().collect();
    let is_lookup = |entry: &ConntrackEntry| {
        [Protocol::Udp.number(), Protocol::Tcp.number()].contains(&entry.protocol)
            && ports.contains(&entry.original_destination.port())
            && sources.contains(&entry.source)
            && !keep(entry)
    };
    delete(&sources, is_lookup)
}

/// Deletes the entries of these addresses, in either direction, and returns how many there were. It
/// is called when another Pod gets an address, which must not inherit established flows.
///
/// Entries for which `keep` is true stay. An answer that is on its way when its entry is deleted is
/// lost.
pub fn delete_flows(addresses: &[IpAddr], keep: impl Fn(&ConntrackEntry) -> bool) -> io::Result<usize> {
    let addresses: HashSet<IpAddr> = addresses.iter().copied().collect();
    let is_of_one = |entry: &ConntrackEntry| {
        let ends = [entry.source, entry.original_destination.ip(), entry.reply_source.ip()];
        ends.iter().any(|end| addresses.contains(end)) && !keep(entry)
    };
    delete(&addresses, is_of_one)
}

/// Deletes the entries for which `which` is true, in the families of these addresses.
fn delete(addresses: &HashSet<IpAddr>, which: impl Fn(&ConntrackEntry) -> bool) -> io::Result<usize> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let mut socket = NetfilterSocket::open()?;
    let mut found = Vec::new();
    for family in families(addresses) {
        found.extend(socket.dump(
            |sequence| entries::ask(family, sequence),
            |message, found| found.extend(entries::read(message).filter(&which)),
        )?);
    }
    delete_all(&mut socket, &found)
}

/// The entries in whose flows one of these addresses is an end, in either direction.
pub fn flows_of(addresses: &HashSet<IpAddr>) -> io::Result<Vec<ConntrackEntry>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let mut socket = NetfilterSocket::open()?;
    let is_of_one = |entry: &ConntrackEntry| {
        [entry.source, entry.reply_source.ip()]
            .iter()
            .any(|end| addresses.contains(end))
    };
    let mut found = Vec::new();
    for family in families(addresses) {
        found.extend(socket.dump(
            |sequence| entries::ask(family, sequence),
            |message, found| found.extend(entries::read(message).filter(&is_of_one)),
        )?);
    }
    Ok(found)
}

/// Whom a connection over TCP goes to behind any translation, in a zone of the original direction.
/// `None`: there is no such connection.
///
/// One round trip to the kernel.
pub fn translated(source: SocketAddr, asked: SocketAddr, zone: u16) -> io::Result<Option<SocketAddr>> {
    let mut socket = NetfilterSocket::open()?;
    let ask = |sequence| entries::ask_tcp(source, asked, zone, sequence);
    match socket.ask_one(ask, entries::read) {
        Ok(entry) => Ok(Some(entry.reply_source)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes these entries, and returns how many there were still.
pub fn delete_entries(flows: &[ConntrackEntry]) -> io::Result<usize> {
    delete_all(&mut NetfilterSocket::open()?, flows)
}

fn delete_all(socket: &mut NetfilterSocket, flows: &[ConntrackEntry]) -> io::Result<usize> {
    let mut deleted = 0;
    for some in flows.chunks(DELETIONS) {
        let answers = socket.request_all(some.len(), |first| entries::delete(some, first))?;
        for errno in answers {
            match errno {
                0 => deleted += 1,
                // The entry timed out meanwhile.
                libc::ENOENT => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
    Ok(deleted)
}

/// The families that need a dump. Their numbers fit `nfgen_family`.
fn families(addresses: &HashSet<IpAddr>) -> impl Iterator<Item = u8> {
    let v4 = addresses.iter().any(IpAddr::is_ipv4).then_some(libc::AF_INET as u8);
    let v6 = addresses.iter().any(IpAddr::is_ipv6).then_some(libc::AF_INET6 as u8);
    v4.into_iter().chain(v6)
}
