//! Notifications of rtnetlink: what the kernel tells when links, addresses, routes or rules change.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, read};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// The length of the longest datagram of notifications.
pub(super) const DATAGRAM: usize = 32 * 1024;

/// `RTNLGRP_*` of `linux/rtnetlink.h`.
pub(super) mod group {
    pub(in super::super) const LINK: u32 = 1;
    pub(in super::super) const IPV4_ADDRESS: u32 = 5;
    pub(in super::super) const IPV4_ROUTE: u32 = 7;
    pub(in super::super) const IPV4_RULE: u32 = 8;
    pub(in super::super) const IPV6_ADDRESS: u32 = 9;
    pub(in super::super) const IPV6_ROUTE: u32 = 11;
    pub(in super::super) const IPV6_RULE: u32 = 19;
    /// Forwarding and reverse-path checks, of all links and of each.
    pub(in super::super) const IPV4_NETCONF: u32 = 24;
    pub(in super::super) const IPV6_NETCONF: u32 = 25;
}

/// Opens a socket for the notifications of these groups, in the network namespace of the calling
/// thread. It does not block.
pub(super) fn subscribe(groups: &[u32]) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
    bind(&socket, &SocketAddrNetlink::new(0, mask))?;
    Ok(socket)
}

/// Reads all notifications that wait, each datagram into `buffer`, and returns whether some were
/// lost (`ENOBUFS`) or the socket failed.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> bool {
    let mut are_lost = false;
    loop {
        match read(&socket, &mut *buffer) {
            Ok(length) => each(buffer.get(..length).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => are_lost = true,
            Err(Errno::AGAIN) => return are_lost,
            Err(_) => return true,
        }
    }
}
