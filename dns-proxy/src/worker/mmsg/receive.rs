//! Many datagrams in one recvmmsg(2).
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::raw_address::RawAddress;
use crate::worker::control::{self, PacketInfo};

/// The buffers for a batch of received datagrams.
pub(in crate::worker) struct ReceiveBatch {
    /// The largest payload that is received whole.
    size: usize,
    payloads: Vec<u8>,
    controls: Vec<[u8; control::BUFFER_SIZE]>,
    addresses: Vec<RawAddress>,
    buffers: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// How many hold a datagram.
    filled: usize,
    /// How many the last call had room for.
    offered: usize,
    /// A moving sum of how many arrived: those of the last call, and half of the sum before it.
    lately: usize,
}

/// One received datagram.
#[derive(Debug)]
pub(in crate::worker) struct ReceivedDatagram<'a> {
    pub(in crate::worker) payload: &'a [u8],
    /// The payload was longer, and this is its beginning.
    pub(in crate::worker) is_cut: bool,
    /// `None` on a connected socket that was not asked, or for a family that is not ours.
    pub(in crate::worker) source: Option<SocketAddr>,
    pub(in crate::worker) received: PacketInfo,
}

// SAFETY: the pointers in `buffers` and `headers` point into the other vectors, whose memory does
// not move with the struct and is used through `&mut self` only.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// Below this moving sum only so many are asked for, since laying out a whole batch costs time.
    const FEW: usize = 8;
    /// Where datagrams come one by one: room for one more shows whether there are more.
    const LONE: usize = 2;

    /// Room for `count` datagrams of `size` octets. Memory that is never written to costs nothing.
    pub(in crate::worker) fn new(count: usize, size: usize) -> Self {
        // SAFETY: all-zero is a valid value of these C structs.
        let (address, buffer, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            size,
            payloads: vec![0; count * size],
            controls: vec![[0; control::BUFFER_SIZE]; count],
            addresses: vec![address; count],
            buffers: vec![buffer; count],
            headers: vec![header; count],
            filled: 0,
            offered: 0,
            lately: 0,
        }
    }

    /// Receives the datagrams that are queued, up to the size of the batch;
    /// [`is_full`](Self::is_full) tells whether there may be more. `WouldBlock` when there is none.
    pub(in crate::worker) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let wanted = match self.lately {
            1..=2 => Self::LONE,
            0..Self::FEW => Self::FEW,
            _ => self.headers.len(),
        };
        self.offered = wanted.min(self.headers.len());
        self.filled = 0;
        for index in 0..self.offered {
            self.buffers[index] = libc::iovec {
                iov_base: self.payloads[index * self.size..].as_mut_ptr().cast(),
                iov_len: self.size,
            };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.addresses[index]).cast();
            header.msg_namelen = size_of::<RawAddress>() as libc::socklen_t;
            header.msg_iov = &raw mut self.buffers[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = control::BUFFER_SIZE as _;
            header.msg_flags = 0;
        }
        // SAFETY: each header points to an address, a buffer and control room of the lengths it
        // gives, which live until the call has returned and which nobody else uses meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.offered as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.lately = self.filled + self.lately / 2;
        Ok(self.filled)
    }

    /// Whether the last [`receive`](Self::receive) took all that it had room for, so that more may
    /// be there.
    pub(in crate::worker) fn is_full(&self) -> bool {
        self.filled == self.offered
    }

    /// What the last [`receive`](Self::receive) brought.
    pub(in crate::worker) fn datagrams(&self) -> impl Iterator<Item = ReceivedDatagram<'_>> {
        (0..self.filled).map(|index| {
            let header = &self.headers[index];
            let length = (header.msg_len as usize).min(self.size);
            let told: usize = header.msg_hdr.msg_controllen as _;
            let control_length = told.min(control::BUFFER_SIZE);
            ReceivedDatagram {
                payload: &self.payloads[index * self.size..][..length],
                is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                source: match header.msg_hdr.msg_namelen {
                    0 => None,
                    _ => self.addresses[index].read(),
                },
                received: control::read(&self.controls[index][..control_length]),
            }
        })
    }
}
