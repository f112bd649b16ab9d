//! Many datagrams in one sendmmsg(2), and those to one place as one (`UDP_SEGMENT`).
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::raw_address::RawAddress;
use crate::worker::control::{self, LocalAddress};

/// Datagrams that wait to be sent together. Their order is of no importance.
#[derive(Default)]
pub(in crate::worker) struct SendQueue {
    payloads: Vec<u8>,
    datagrams: Vec<QueuedDatagram>,
    /// Segmentation failed on this socket, so each datagram is sent by itself.
    pub(super) no_segmentation: bool,
}

#[derive(Clone, Copy)]
struct QueuedDatagram {
    start: usize,
    length: usize,
    /// `None` on a connected socket.
    to: Option<SocketAddr>,
    from: Option<LocalAddress>,
    /// The sort key that brings together what leaves as one: equal where
    /// [`destination`](Self::destination) is, and rarely elsewhere.
    order: u64,
}

impl QueuedDatagram {
    fn new(start: usize, length: usize, to: Option<SocketAddr>, from: Option<LocalAddress>) -> Self {
        // The end of an IPv6 address, where the hosts of a network differ.
        let address = match to.map(|to| to.ip()) {
            Some(IpAddr::V4(v4)) => v4.to_bits(),
            Some(IpAddr::V6(v6)) => v6.to_bits() as u32,
            None => 0,
        };
        let port = to.map_or(0, |to| to.port());
        Self {
            start,
            length,
            to,
            from,
            order: u64::from(address) << 32 | u64::from(port) << 16 | length as u64 & 0xffff,
        }
    }

    /// What datagrams that leave as one have in common.
    fn destination(&self) -> (Option<SocketAddr>, Option<LocalAddress>, usize) {
        (self.to, self.from, self.length)
    }
}

impl SendQueue {
    pub(in crate::worker) fn push(&mut self, payload: &[u8], to: Option<SocketAddr>, from: Option<LocalAddress>) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        self.datagrams.push(QueuedDatagram::new(start, payload.len(), to, from));
    }

    /// As [`push`](Self::push) on a connected socket, with the first two octets replaced.
    pub(in crate::worker) fn push_under_id(&mut self, id: u16, payload: &[u8]) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(&id.to_be_bytes());
        self.payloads.extend_from_slice(payload.get(2..).unwrap_or_default());
        let length = self.payloads.len() - start;
        self.datagrams.push(QueuedDatagram::new(start, length, None, None));
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.datagrams.len()
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// The payload of a queued datagram.
    pub(in crate::worker) fn payload(&self, index: usize) -> &[u8] {
        let QueuedDatagram { start, length, .. } = self.datagrams[index];
        &self.payloads[start..start + length]
    }

    /// Brings together what leaves as one. To be called before the first [`send`](Self::send).
    pub(in crate::worker) fn sort(&mut self) {
        if !self.no_segmentation && self.len() > 1 {
            self.datagrams.sort_unstable_by_key(|datagram| datagram.order);
        }
    }

    /// Sends the datagrams from `first` on, and returns how many were sent. An error concerns the
    /// first of them, or one that was sent earlier.
    pub(in crate::worker) fn send(
        &mut self,
        first: usize,
        socket: BorrowedFd<'_>,
        space: &mut SendBuffers,
    ) -> io::Result<usize> {
        loop {
            space.lay_out(self, first);
            match usize::try_from(space.send(socket)) {
                Ok(sent) => return Ok(space.runs[..sent].iter().sum()),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    let segmented = space.runs.first().is_some_and(|run| *run > 1);
                    // The peer's refusal has nothing to do with segmentation.
                    if !segmented || error.kind() == io::ErrorKind::ConnectionRefused {
                        return Err(error);
                    }
                    // An old kernel, a link without checksum offload, or a datagram that cannot be
                    // sent. Send each by itself.
                    self.no_segmentation = true;
                }
            }
        }
    }

    /// Sends all answers. One that cannot be sent is lost, as any datagram may be: its client asks
    /// again.
    pub(in crate::worker) fn send_all(&mut self, socket: BorrowedFd<'_>, space: &mut SendBuffers) {
        self.sort();
        let mut sent = 0;
        while sent < self.len() {
            match self.send(sent, socket, space) {
                Ok(count) => sent += count,
                Err(error) => {
                    // A client can cause this (port 0, an unreachable address), so it must not fill
                    // the log.
                    tracing::debug!(%error, "an answer could not be sent");
                    sent += 1;
                }
            }
        }
        self.clear();
    }

    pub(in crate::worker) fn clear(&mut self) {
        self.payloads.clear();
        self.datagrams.clear();
    }
}

/// The buffers that sendmmsg(2) reads a batch from; one for all queues of a thread.
pub(in crate::worker) struct SendBuffers {
    addresses: Vec<RawAddress>,
    buffers: Vec<libc::iovec>,
    controls: Vec<Vec<u8>>,
    headers: Vec<libc::mmsghdr>,
    /// How many datagrams each header stands for.
    pub(super) runs: Vec<usize>,
}

// SAFETY: the pointers are written anew before each use, and used within one call only.
unsafe impl Send for SendBuffers {}

impl SendBuffers {
    /// Messages sent with one call.
    const COUNT: usize = 128;

    /// The most datagrams that leave as one: UDP_MAX_SEGMENTS of all kernels, and together no
    /// longer than the longest datagram.
    const SEGMENTS: usize = 64;
    const LONGEST: usize = 60_000;

    pub(in crate::worker) fn new() -> Self {
        // SAFETY: all-zero is a valid value of these C structs.
        let (address, buffer, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            addresses: vec![address; Self::COUNT],
            buffers: vec![buffer; Self::COUNT],
            controls: vec![Vec::new(); Self::COUNT],
            headers: vec![header; Self::COUNT],
            runs: Vec::with_capacity(Self::COUNT),
        }
    }

    /// Sends what is laid out, and returns for how many headers it was, or -1 as sendmmsg(2) does.
    fn send(&mut self, socket: BorrowedFd<'_>) -> libc::c_int {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if let [_] = self.runs[..] {
            // Most often it is one, for which sendmsg(2) takes less.
            // SAFETY: as below.
            let octets = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const self.headers[0].msg_hdr, flags as _) };
            return if octets < 0 { -1 } else { 1 };
        }
        // SAFETY: each header points to an address, buffers and control messages of the lengths it
        // gives, which live until the call has returned; the kernel only reads them.
        unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.runs.len() as libc::c_uint,
                flags as _,
            )
        }
    }

    /// Lays out as many datagrams of the queue as there is space for.
    pub(super) fn lay_out(&mut self, queue: &SendQueue, first: usize) {
        self.runs.clear();
        let datagrams = &queue.datagrams[first..];
        let datagrams = &datagrams[..datagrams.len().min(Self::COUNT)];
        for (index, datagram) in datagrams.iter().enumerate() {
            self.buffers[index] = libc::iovec {
                // The kernel only reads it.
                iov_base: queue.payloads[datagram.start..].as_ptr().cast_mut().cast(),
                iov_len: datagram.length,
            };
        }
        let mut at = 0;
        while let Some(datagram) = datagrams.get(at) {
            let run = match queue.no_segmentation {
                true => 1,
                false => run_length(&datagrams[at..]),
            };
            self.lay_out_run(at, run, datagram);
            at += run;
        }
    }

    fn lay_out_run(&mut self, at: usize, run: usize, datagram: &QueuedDatagram) {
        let index = self.runs.len();
        self.runs.push(run);
        let header = &mut self.headers[index].msg_hdr;
        header.msg_iov = &raw mut self.buffers[at];
        header.msg_iovlen = run as _;
        (header.msg_name, header.msg_namelen) = match datagram.to {
            None => (ptr::null_mut(), 0),
            Some(to) => {
                let length = self.addresses[index].write(to);
                ((&raw mut self.addresses[index]).cast(), length)
            }
        };
        let control = &mut self.controls[index];
        control.clear();
        if let Some(from) = datagram.from {
            control::leave_from(from, control);
        }
        if run > 1 {
            control::segments_of(datagram.length, control);
        }
        (header.msg_control, header.msg_controllen) = match control.is_empty() {
            true => (ptr::null_mut(), 0),
            false => (control.as_mut_ptr().cast(), control.len() as _),
        };
    }
}

/// How many of these leave as one with the first.
fn run_length(datagrams: &[QueuedDatagram]) -> usize {
    let first = datagrams[0];
    if first.length == 0 {
        return 1;
    }
    let most = (SendBuffers::LONGEST / first.length).clamp(1, SendBuffers::SEGMENTS);
    let same = datagrams.iter().take(most);
    same.take_while(|it| it.destination() == first.destination()).count()
}
