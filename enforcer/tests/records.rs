//! Logged packets of a real kernel, in network namespaces that the tests make for themselves.
#![allow(clippy::unwrap_used)]

mod namespace;

use std::io::Write;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use enforcer::records::{
    BindError, DEFAULT_GROUP, PacketDetail, RecordEvent, RecordListener, RecordedPacket, RecordedVerdict, prefix,
};

use policy::Direction;

use namespace::{inside, nft};

/// Only a failing test waits that long.
fn patience() -> Duration {
    patience::scaled(Duration::from_secs(30))
}

#[test]
fn refused_and_audited_packets_are_heard() {
    inside(|| {
        let (refused, audited) = (
            prefix(Direction::Egress, RecordedVerdict::Refused),
            prefix(Direction::Ingress, RecordedVerdict::Audited),
        );
        nft(&format!(
            r#"table inet t {{ chain c {{ type filter hook output priority 0;
                ip saddr 127.0.0.2 tcp dport 443 tcp flags syn / syn,ack log prefix "{refused}" group {DEFAULT_GROUP} drop
                ip saddr 127.0.0.2 udp dport 9 log prefix "{audited}" group {DEFAULT_GROUP}
                ip6 saddr ::1 meta l4proto icmpv6 icmpv6 type echo-request log prefix "{audited}" group {DEFAULT_GROUP}
            }}; }}"#
        ));
        let (sender, heard) = mpsc::channel();
        let _listener = RecordListener::bind(DEFAULT_GROUP, move |it| {
            if let RecordEvent::Records(records) = it {
                records.iter().for_each(|record| sender.send(*record).unwrap());
            }
        })
        .unwrap();

        let udp = UdpSocket::bind("127.0.0.2:0").unwrap();
        udp.send_to(b"?", "127.0.0.3:9").unwrap();
        assert_eq!(
            heard.recv_timeout(patience()).unwrap(),
            RecordedPacket {
                direction: Direction::Ingress,
                verdict: RecordedVerdict::Audited,
                source: ip("127.0.0.2"),
                destination: ip("127.0.0.3"),
                protocol: 17,
                detail: PacketDetail::Port(9),
            }
        );

        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket_address("127.0.0.2:0")).unwrap();
        socket.set_nonblocking(true).unwrap();
        // It stays on its way: the packet is dropped.
        socket.connect(&socket_address("127.0.0.3:443")).unwrap_err();
        let record = heard.recv_timeout(patience()).unwrap();
        let (direction, verdict) = (record.direction, record.verdict);
        assert_eq!((direction, verdict), (Direction::Egress, RecordedVerdict::Refused));
        assert_eq!((record.protocol, record.detail), (6, PacketDetail::Port(443)));

        let ping = socket2::Socket::new(
            socket2::Domain::IPV6,
            socket2::Type::RAW,
            Some(socket2::Protocol::ICMPV6),
        )
        .unwrap();
        ping.send_to(&[128, 0, 0, 0, 0, 1, 0, 1], &socket_address("[::1]:0"))
            .unwrap();
        let record = heard.recv_timeout(patience()).unwrap();
        assert_eq!((record.source, record.destination), (ip("::1"), ip("::1")));
        assert_eq!(
            (record.protocol, record.detail),
            (58, PacketDetail::Icmp { kind: 128, code: 0 })
        );
    });
}

#[test]
fn packets_that_others_log_are_told_apart() {
    inside(|| {
        nft(
            "table inet t { chain c { type filter hook output priority 0; udp dport 9 log prefix \"mine\" group 7; }; }",
        );
        let (sender, heard) = mpsc::channel();
        let _listener = RecordListener::bind(7, move |it| {
            sender.send(matches!(it, RecordEvent::Foreign(1))).unwrap();
        })
        .unwrap();
        let udp = UdpSocket::bind("127.0.0.2:0").unwrap();
        udp.send_to(b"?", "127.0.0.3:9").unwrap();
        assert!(heard.recv_timeout(patience()).unwrap());
    });
}

#[test]
fn a_group_has_one_listener_and_is_free_when_it_is_dropped() {
    inside(|| {
        let first = RecordListener::bind(7, |_| {}).unwrap();
        assert!(matches!(
            RecordListener::bind(7, |_| {}),
            Err(BindError::Taken { group: 7 })
        ));
        assert!(!first.has_ended());
        let other = RecordListener::bind(8, |_| {}).unwrap();
        drop(first);
        let again = RecordListener::bind(7, |_| {}).unwrap();
        drop((other, again));
    });
}

#[test]
fn a_listener_that_is_too_slow_loses_records_and_goes_on() {
    inside(|| {
        let words = prefix(Direction::Egress, RecordedVerdict::Refused);
        nft(&format!(
            r#"table inet t {{ chain c {{ type filter hook output priority 0; udp dport 9 log prefix "{words}" group 7 drop; }}; }}"#
        ));
        let (heard, overruns) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Barrier::new(2));
        let _listener = RecordListener::bind(7, {
            let (heard, overruns, gate) = (Arc::clone(&heard), Arc::clone(&overruns), Arc::clone(&gate));
            move |it| match it {
                RecordEvent::Records(records) => {
                    if heard.fetch_add(records.len(), Ordering::SeqCst) == 0 {
                        gate.wait();
                    }
                }
                RecordEvent::Overrun => drop(overruns.fetch_add(1, Ordering::SeqCst)),
                RecordEvent::Foreign(_) => {}
            }
        })
        .unwrap();
        let udp = UdpSocket::bind("127.0.0.2:0").unwrap();
        // Refused packets are an error to their sender; they are logged all the same.
        const SENT: usize = 40_000;
        for _ in 0..SENT {
            let _ = udp.send_to(&[0; 200], "127.0.0.3:9");
        }
        gate.wait();
        wait_until("the loss is noticed", || overruns.load(Ordering::SeqCst) > 0);
        let before = heard.load(Ordering::SeqCst);
        assert!(before < SENT, "{before}");
        wait_until("records come again", || {
            let _ = udp.send_to(b"?", "127.0.0.3:9");
            heard.load(Ordering::SeqCst) > before + 1_000
        });
    });
}

#[test]
fn established_flows_are_not_recorded() {
    inside(|| {
        let words = prefix(Direction::Egress, RecordedVerdict::Audited);
        nft(&format!(
            r#"table inet t {{ chain c {{ type filter hook output priority 0;
                ct state established accept; tcp dport 80 log prefix "{words}" group 7; }}; }}"#
        ));
        let (sender, heard) = mpsc::channel();
        let listener = RecordListener::bind(7, move |it| {
            if let RecordEvent::Records(records) = it {
                sender.send(records.len()).unwrap();
            }
        })
        .unwrap();
        let server = TcpListener::bind("127.0.0.1:80").unwrap();
        let mut client = TcpStream::connect("127.0.0.1:80").unwrap();
        let _accepted = server.accept().unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(heard.recv_timeout(patience()).unwrap(), 1);
        drop(listener);
        assert_eq!(heard.iter().sum::<usize>(), 0, "the rest of the flow");
    });
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < patience(), "it did not happen: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket_address(text: &str) -> socket2::SockAddr {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}
