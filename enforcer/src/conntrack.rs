//! The few conntrack operations that are needed.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use policy::Protocol;

use crate::netlink::conntrack::{self as entries, ConntrackEntry};
use crate::netlink::socket::NetfilterSocket;

/// How many deletions go into one send: their acknowledgements must fit the receive buffer.
const DELETIONS: usize = 256;

/// Deletes the conntrack entries of lookups (destination port `port`, UDP and TCP) that `sources`
/// made, so that the next packet of such a flow meets the interception rules: NAT is decided once
/// per flow. Returns how many were deleted.
///
/// Flows that `stays` holds of, by who was asked and who, after any NAT, answers, are left alone.
/// An answer that is on its way when its flow is deleted is lost: nobody puts the address back that
/// was asked.
pub fn forget_lookups(
    sources: &[IpAddr],
    ports: &[u16],
    stays: impl Fn(SocketAddr, SocketAddr) -> bool,
) -> io::Result<usize> {
    if sources.is_empty() || ports.is_empty() {
        return Ok(0);
    }
    let sources: HashSet<IpAddr> = sources.iter().copied().collect();
    let is_lookup = |flow: &ConntrackEntry| {
        [Protocol::Udp.number(), Protocol::Tcp.number()].contains(&flow.protocol)
            && ports.contains(&flow.asked.port())
            && sources.contains(&flow.source)
            && !stays(flow.asked, flow.answers)
    };
    forget(&sources, is_lookup)
}

/// Deletes the conntrack entries of these addresses, whoever opened them: another pod has an
/// address now, and what was established with the one before is not with it. Returns how many were
/// deleted.
///
/// Flows whose answers come, after any NAT, from where `stays` holds are left alone: an answer that
/// is on its way when its flow is deleted is lost.
pub fn forget_flows(addresses: &[IpAddr], stays: impl Fn(SocketAddr) -> bool) -> io::Result<usize> {
    let addresses: HashSet<IpAddr> = addresses.iter().copied().collect();
    let is_of_one = |flow: &ConntrackEntry| {
        let ends = [flow.source, flow.asked.ip(), flow.answers.ip()];
        ends.iter().any(|end| addresses.contains(end)) && !stays(flow.answers)
    };
    forget(&addresses, is_of_one)
}

/// Deletes the entries that `which` holds of, in the families of these addresses.
fn forget(addresses: &HashSet<IpAddr>, which: impl Fn(&ConntrackEntry) -> bool) -> io::Result<usize> {
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
    let mut deleted = 0;
    for some in found.chunks(DELETIONS) {
        let answers = socket.request_all(some.len(), |first| entries::delete(some, first))?;
        for errno in answers {
            match errno {
                0 => deleted += 1,
                // It ended by itself meanwhile.
                libc::ENOENT => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
    Ok(deleted)
}

/// The families that need a dump. Their numbers fit `nfgen_family`.
fn families(sources: &HashSet<IpAddr>) -> impl Iterator<Item = u8> {
    let v4 = sources.iter().any(IpAddr::is_ipv4).then_some(libc::AF_INET as u8);
    let v6 = sources.iter().any(IpAddr::is_ipv6).then_some(libc::AF_INET6 as u8);
    v4.into_iter().chain(v6)
}
