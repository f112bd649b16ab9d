//! System calls for which the safe crates have no wrapper.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, SockRef};

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

/// recvmsg(2): the lengths of data and control messages, and the sender.
pub(super) fn receive_message(
    socket: BorrowedFd<'_>,
    data: &mut [u8],
    control: &mut [u8],
) -> io::Result<(usize, SocketAddr, usize)> {
    // An IPv6 address, because that is as long as any answer.
    let mut source = SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
    // SAFETY: both are passed to recvmsg only, which writes initialised bytes or none.
    let (data, control) = unsafe { (as_uninit(data), as_uninit(control)) };
    let mut buffers = [MaybeUninitSlice::new(data)];
    let mut message = MsgHdrMut::new()
        .with_addr(&mut source)
        .with_buffers(&mut buffers)
        .with_control(control);
    let length = SockRef::from(&socket).recvmsg(&mut message, 0)?;
    let control_length = message.control_len();
    let source = source.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((length, source, control_length))
}

/// # Safety
///
/// No uninitialised byte may be written through the result.
unsafe fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layouts are the same, the lifetime is that of `bytes`, and the caller keeps the bytes initialised.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}

fn switch_on(socket: BorrowedFd<'_>, level: c_int, option: c_int) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the descriptor is open as long as it is borrowed, and the value is an int that outlives the call.
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
