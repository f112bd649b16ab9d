//! System calls for which the safe crates have no wrapper.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks for the original destination with each datagram (`IP_RECVORIGDSTADDR`).
pub(super) fn report_original_destination(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => switch_on(socket, libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR),
        SocketAddr::V6(_) => switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR),
    }
}

/// Asks for the local address with each datagram (`IP_PKTINFO`, RFC 3542 §6.2).
pub(super) fn report_local_address(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => switch_on(socket, libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    }
}

fn switch_on(socket: BorrowedFd<'_>, level: c_int, option: c_int) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the descriptor is open as long as it is borrowed, and the value is an int that
    // outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
