//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), for which the safe crates have
//! no wrapper.
//!
//! Datagrams of the same length to the same destination leave as one: `UDP_SEGMENT` (udp(7), Linux
//! 4.18) takes them through the kernel's output path once and cuts them apart at its end. Sending
//! is two thirds of what a lookup costs.
//!
//! glibc and musl give lengths and flags types of different widths. `as _` converts to either; all
//! values fit both.

mod raw_address;
mod receive;
mod send;

pub(super) use self::receive::{ReceiveBatch, ReceivedDatagram};
pub(super) use self::send::{SendBuffers, SendQueue};

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{SocketAddr, UdpSocket};
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
        let mut queue = SendQueue::default();
        queue.no_segmentation = no_segmentation;
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
        for _ in 0..4 {
            send(1);
            assert_eq!(receive(), (Some(1), false));
        }
        send(3);
        assert_eq!(receive(), (Some(2), true), "one by one");
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
