//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), for which the safe crates have
//! no wrapper.
//!
//! What goes to the same place with the same length goes as one: `UDP_SEGMENT` (udp(7), Linux 4.18)
//! takes it through the kernel's output path once, and cuts it into datagrams at the end. Sending
//! is two thirds of what a lookup costs.
//!
//! glibc and musl give lengths and flags types of different widths; `as _` is either's, of values
//! that fit both.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::control::{self, LocalAddress, PacketInfo};

/// The address of a datagram, in the layout of the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
union RawAddress {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for a batch of received datagrams.
pub(super) struct ReceiveBatch {
    /// The largest payload that is received whole.
    size: usize,
    payloads: Vec<u8>,
    controls: Vec<[u8; control::ROOM]>,
    addresses: Vec<RawAddress>,
    buffers: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// How many hold a datagram.
    filled: usize,
    /// The last call had room for so many.
    offered: usize,
    /// How many came lately: with the last call, and half of what it was before.
    lately: usize,
}

/// One received datagram.
#[derive(Debug)]
pub(super) struct ReceivedDatagram<'a> {
    pub(super) payload: &'a [u8],
    /// The payload was longer, and this is its beginning.
    pub(super) is_cut: bool,
    /// `None` on a connected socket that was not asked, or for a family that is not ours.
    pub(super) source: Option<SocketAddr>,
    pub(super) received: PacketInfo,
}

// SAFETY: the pointers in `buffers` and `headers` point into the other vectors, whose memory does
// not move with the struct and is used through `&mut self` only.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// Where fewer came lately, so many are asked for: a whole batch is laid out for nothing then.
    const FEW: usize = 8;

    /// Room for `count` datagrams of `size` octets. Memory that is never written to costs nothing.
    pub(super) fn new(count: usize, size: usize) -> Self {
        // SAFETY: all-zero is a valid value of these C structs.
        let (address, buffer, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            size,
            payloads: vec![0; count * size],
            controls: vec![[0; control::ROOM]; count],
            addresses: vec![address; count],
            buffers: vec![buffer; count],
            headers: vec![header; count],
            filled: 0,
            offered: 0,
            lately: 0,
        }
    }

    /// Receives what is there, as far as there is room: [`is_full`](Self::is_full) says whether
    /// there may be more. `WouldBlock` when nothing is there.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.offered = match self.lately < Self::FEW {
            true => Self::FEW.min(self.headers.len()),
            false => self.headers.len(),
        };
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
            header.msg_controllen = control::ROOM as _;
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
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.offered
    }

    /// What the last [`receive`](Self::receive) brought.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = ReceivedDatagram<'_>> {
        (0..self.filled).map(|index| {
            let header = &self.headers[index];
            let length = (header.msg_len as usize).min(self.size);
            let told: usize = header.msg_hdr.msg_controllen as _;
            let control_length = told.min(control::ROOM);
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

/// Datagrams that wait to be sent together. Their order is of no importance.
#[derive(Default)]
pub(super) struct SendQueue {
    payloads: Vec<u8>,
    datagrams: Vec<QueuedDatagram>,
    /// The way out takes no segments, or has refused some.
    no_segmentation: bool,
}

#[derive(Clone, Copy)]
struct QueuedDatagram {
    start: usize,
    length: usize,
    /// `None` on a connected socket.
    to: Option<SocketAddr>,
    from: Option<LocalAddress>,
    /// Brings together what goes as one: equal where [`destination`](Self::destination) is, and
    /// rarely elsewhere.
    order: u64,
}

impl QueuedDatagram {
    fn new(start: usize, length: usize, to: Option<SocketAddr>, from: Option<LocalAddress>) -> Self {
        // Of an IPv6 address the end, where the hosts of a network differ.
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

    /// What datagrams that go as one have in common.
    fn destination(&self) -> (Option<SocketAddr>, Option<LocalAddress>, usize) {
        (self.to, self.from, self.length)
    }
}

impl SendQueue {
    pub(super) fn push(&mut self, payload: &[u8], to: Option<SocketAddr>, from: Option<LocalAddress>) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        self.datagrams.push(QueuedDatagram::new(start, payload.len(), to, from));
    }

    /// As [`push`](Self::push) on a connected socket, with the first two octets replaced.
    pub(super) fn push_under_id(&mut self, id: u16, payload: &[u8]) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(&id.to_be_bytes());
        self.payloads.extend_from_slice(payload.get(2..).unwrap_or_default());
        let length = self.payloads.len() - start;
        self.datagrams.push(QueuedDatagram::new(start, length, None, None));
    }

    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// A payload that waits.
    pub(super) fn payload(&self, index: usize) -> &[u8] {
        let QueuedDatagram { start, length, .. } = self.datagrams[index];
        &self.payloads[start..start + length]
    }

    /// To be called before the first [`send`](Self::send): brings together what goes as one.
    pub(super) fn sort(&mut self) {
        if !self.no_segmentation && self.len() > 1 {
            self.datagrams.sort_unstable_by_key(|datagram| datagram.order);
        }
    }

    /// Sends those from `first` on; says how many were sent. An error speaks of the first of them,
    /// or of what was sent before.
    pub(super) fn send(&mut self, first: usize, socket: BorrowedFd<'_>, space: &mut SendBuffers) -> io::Result<usize> {
        loop {
            space.lay_out(self, first);
            // SAFETY: each header points to an address, buffers and control messages of the lengths
            // it gives, which live until the call has returned; the kernel only reads them.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    space.headers.as_mut_ptr(),
                    space.runs.len() as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => return Ok(space.runs[..sent].iter().sum()),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    let segmented = space.runs.first().is_some_and(|run| *run > 1);
                    // A refusal by the peer has nothing to do with how it was sent.
                    if !segmented || error.kind() == io::ErrorKind::ConnectionRefused {
                        return Err(error);
                    }
                    // An old kernel, a link without checksums, or one of the datagrams cannot be
                    // sent: each by itself.
                    self.no_segmentation = true;
                }
            }
        }
    }

    /// Sends all answers. One that cannot be sent is lost, as any datagram may be: its client asks
    /// again.
    pub(super) fn send_all(&mut self, socket: BorrowedFd<'_>, space: &mut SendBuffers) {
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

    pub(super) fn clear(&mut self) {
        self.payloads.clear();
        self.datagrams.clear();
    }
}

/// What sendmmsg(2) reads its batch from; one for all outboxes of a thread.
pub(super) struct SendBuffers {
    addresses: Vec<RawAddress>,
    buffers: Vec<libc::iovec>,
    controls: Vec<Vec<u8>>,
    headers: Vec<libc::mmsghdr>,
    /// How many datagrams each header stands for.
    runs: Vec<usize>,
}

// SAFETY: the pointers are written anew before each use, and used within one call only.
unsafe impl Send for SendBuffers {}

impl SendBuffers {
    /// Messages sent with one call.
    const COUNT: usize = 128;

    /// Datagrams that go as one: UDP_MAX_SEGMENTS of all kernels, and together not longer than the
    /// longest datagram.
    const SEGMENTS: usize = 64;
    const LONGEST: usize = 60_000;

    pub(super) fn new() -> Self {
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

    /// Lays out as many of the queue as there is space for.
    fn lay_out(&mut self, queue: &SendQueue, first: usize) {
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

/// How many of the first of these go as one.
fn run_length(datagrams: &[QueuedDatagram]) -> usize {
    let first = datagrams[0];
    if first.length == 0 {
        return 1;
    }
    let most = (SendBuffers::LONGEST / first.length).clamp(1, SendBuffers::SEGMENTS);
    let same = datagrams.iter().take(most);
    same.take_while(|it| it.destination() == first.destination()).count()
}

impl RawAddress {
    fn read(&self) -> Option<SocketAddr> {
        // SAFETY: the union was zeroed or filled by the kernel, so every field is initialised, and
        // all begin with the family.
        unsafe {
            match i32::from(self.family) {
                libc::AF_INET => Some(SocketAddr::from((
                    Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes()),
                    u16::from_be(self.v4.sin_port),
                ))),
                libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(self.v6.sin6_addr.s6_addr),
                    u16::from_be(self.v6.sin6_port),
                    self.v6.sin6_flowinfo,
                    self.v6.sin6_scope_id,
                ))),
                _ => None,
            }
        }
    }

    /// Says how long it is.
    fn write(&mut self, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(address) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(address.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(address) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_batch_arrives_whole_with_its_senders() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (one, another) = (UdpSocket::bind(local).unwrap(), UdpSocket::bind(local).unwrap());
            let mut queue = SendQueue::default();
            queue.push(b"first", Some(another.local_addr().unwrap()), None);
            queue.push(b"", Some(another.local_addr().unwrap()), None);
            queue.push(&[7; 100], Some(another.local_addr().unwrap()), None);
            queue.sort();
            assert_eq!(queue.send(0, one.as_fd(), &mut SendBuffers::new()).unwrap(), 3);

            let mut inbox = ReceiveBatch::new(8, 64);
            assert_eq!(inbox.receive(another.as_fd()).unwrap(), 3);
            let mut seen: Vec<_> = inbox
                .datagrams()
                .map(|it| (it.payload.to_vec(), it.is_cut, it.source))
                .collect();
            seen.sort();
            let source = one.local_addr().ok();
            assert_eq!(
                seen,
                [
                    (vec![], false, source),
                    (vec![7; 64], true, source),
                    (b"first".to_vec(), false, source),
                ]
            );
            let error = inbox.receive(another.as_fd()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(inbox.datagrams().count(), 0);
        }
    }

    /// Sends these payloads between two sockets, and says what arrived, sorted.
    fn sent(payloads: &[Vec<u8>], no_segmentation: bool) -> Vec<Vec<u8>> {
        let (one, another) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let mut queue = SendQueue {
            no_segmentation,
            ..SendQueue::default()
        };
        for payload in payloads {
            queue.push(payload, another.local_addr().ok(), None);
        }
        queue.sort();
        let mut space = SendBuffers::new();
        let mut sent = 0;
        while sent < queue.len() {
            sent += queue.send(sent, one.as_fd(), &mut space).unwrap();
        }
        let mut inbox = ReceiveBatch::new(512, 2_048);
        let mut arrived = Vec::new();
        while inbox.receive(another.as_fd()).is_ok() {
            arrived.extend(inbox.datagrams().map(|it| it.payload.to_vec()));
            if !inbox.is_full() {
                break;
            }
        }
        arrived.sort();
        arrived
    }

    #[test]
    fn datagrams_of_one_length_and_of_many_arrive_as_they_are() {
        let mut payloads: Vec<Vec<u8>> = (0u16..80).map(|i| i.to_be_bytes().repeat(20)).collect();
        payloads.extend((0..20).map(|length| vec![7; length * 13]));
        payloads.sort();
        for no_segmentation in [false, true] {
            assert_eq!(sent(&payloads, no_segmentation), payloads);
        }
    }

    #[test]
    fn where_few_came_lately_few_are_asked_for() {
        let (one, another) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        one.connect(another.local_addr().unwrap()).unwrap();
        let send = |count: usize| {
            for _ in 0..count {
                one.send(b"payload").unwrap();
            }
        };
        let mut inbox = ReceiveBatch::new(64, 64);
        let mut receive = || (inbox.receive(another.as_fd()).ok(), inbox.is_full());
        send(80);
        assert_eq!(receive(), (Some(8), true));
        assert_eq!(receive(), (Some(64), true));
        assert_eq!(receive(), (Some(8), false));
        send(20);
        assert_eq!(receive(), (Some(20), false));
        for _ in 0..4 {
            send(1);
            assert_eq!(receive(), (Some(1), false));
        }
        send(9);
        assert_eq!(receive(), (Some(8), true));
        assert_eq!(receive(), (Some(1), false));
    }

    #[test]
    fn an_id_takes_the_place_of_another() {
        let mut queue = SendQueue::default();
        queue.push_under_id(0x0102, b"??payload");
        assert_eq!(queue.payload(0), b"\x01\x02payload");
    }

    #[test]
    fn a_run_has_one_destination_and_one_length() {
        let to = |port: u16| Some(SocketAddr::from(([192, 0, 2, 1], port)));
        let mut queue = SendQueue::default();
        for (length, port) in [(40, 1), (40, 2), (41, 1), (40, 1), (0, 3), (0, 3), (40, 1)] {
            queue.push(&vec![0; length], to(port), None);
        }
        queue.sort();
        let mut space = SendBuffers::new();
        space.lay_out(&queue, 0);
        assert_eq!(space.runs, [3, 1, 1, 1, 1]);
        queue.no_segmentation = true;
        space.lay_out(&queue, 2);
        assert_eq!(space.runs, [1; 5]);
    }
}
