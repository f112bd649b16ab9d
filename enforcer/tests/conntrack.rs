//! Conntrack entries in a real kernel, in a network namespace that the test makes for itself.
#![allow(clippy::unwrap_used)]

mod namespace;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use enforcer::conntrack::{ConntrackEntry, ConntrackListener, ConntrackNews, delete_flows, delete_lookups};
use namespace::{inside, nft};

#[test]
fn only_lookups_of_the_given_sources_are_forgotten() {
    inside(|| {
        // Flows are tracked once a rule asks for their state.
        nft("table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }");
        let pod: IpAddr = "127.0.0.2".parse().unwrap();
        let pod6: IpAddr = "::1".parse().unwrap();
        assert_eq!(delete_lookups(&[pod], &[53], keep_none).unwrap(), 0);

        for (source, resolver, port) in [
            ("127.0.0.2", "127.0.0.1", 53),
            ("127.0.0.2", "127.0.0.1", 5353),
            ("127.0.0.2", "127.0.0.1", 80),
            ("127.0.0.3", "127.0.0.1", 53),
            ("::1", "::1", 53),
        ] {
            look_up(source, resolver, port);
        }
        let tcp = TcpListener::bind("127.0.0.2:53").unwrap();
        let _connection = TcpStream::connect("127.0.0.2:53").unwrap();
        let (_accepted, client) = tcp.accept().unwrap();

        assert_eq!(delete_lookups(&[pod], &[], keep_none).unwrap(), 0);
        assert_eq!(delete_lookups(&[pod], &[53, 5353], keep_none).unwrap(), 2);
        assert_eq!(
            delete_lookups(&[pod], &[53, 5353], keep_none).unwrap(),
            0,
            "they are gone"
        );
        assert_eq!(
            delete_lookups(&[client.ip(), pod6], &[53], keep_none).unwrap(),
            2,
            "TCP, and IPv6"
        );
        assert_eq!(
            delete_lookups(&[pod], &[80], keep_none).unwrap(),
            1,
            "it was left alone"
        );
        assert_eq!(
            delete_lookups(&["127.0.0.3".parse().unwrap()], &[53], keep_none).unwrap(),
            1
        );
    });
}

#[test]
fn many_lookups_are_forgotten_at_once() {
    inside(|| {
        nft("table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }");
        let resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
        for _ in 0..2000 {
            // Each from a port of its own.
            UdpSocket::bind("127.0.0.2:0")
                .unwrap()
                .send_to(b"?", resolver.local_addr().unwrap())
                .unwrap();
        }
        let forgotten = delete_lookups(&["127.0.0.2".parse().unwrap()], &[53], keep_none).unwrap();
        // Some ports may have served twice.
        assert!((1500..=2000).contains(&forgotten), "{forgotten}");
    });
}

#[test]
fn lookups_that_are_translated_as_they_should_be_stay() {
    inside(|| {
        nft(
            "table inet t { chain c { type nat hook output priority -100; ip daddr 127.0.0.53 udp dport 53 dnat ip to 127.0.0.9:15000; }; }",
        );
        let listener = UdpSocket::bind("127.0.0.9:15000").unwrap();
        let pod = UdpSocket::bind("127.0.0.2:0").unwrap();
        pod.send_to(b"?", "127.0.0.53:53").unwrap();
        look_up("127.0.0.2", "127.0.0.1", 53);
        let translated: (SocketAddr, SocketAddr) = ("127.0.0.53:53".parse().unwrap(), listener.local_addr().unwrap());
        let sources = ["127.0.0.2".parse().unwrap()];
        let keep = |entry: &ConntrackEntry| (entry.original_destination, entry.reply_source) == translated;
        assert_eq!(delete_lookups(&sources, &[53], keep).unwrap(), 1, "the other one");
        // The answer finds its way back.
        let (_, client) = listener.recv_from(&mut [0; 8]).unwrap();
        listener.send_to(b"!", client).unwrap();
        assert_eq!(pod.recv_from(&mut [0; 8]).unwrap().1, translated.0);
        assert_eq!(delete_lookups(&sources, &[53], keep_none).unwrap(), 1);
    });
}

#[test]
fn all_flows_of_an_address_are_forgotten_whoever_opened_them() {
    inside(|| {
        nft("table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }");
        for (source, asked, port) in [
            ("127.0.0.2", "127.0.0.1", 53),
            ("127.0.0.2", "127.0.0.1", 80),
            ("127.0.0.3", "127.0.0.2", 80),
            ("127.0.0.3", "127.0.0.1", 80),
            ("::1", "::1", 80),
        ] {
            look_up(source, asked, port);
        }
        assert_eq!(delete_flows(&[], keep_none).unwrap(), 0);
        let address: IpAddr = "127.0.0.2".parse().unwrap();
        assert_eq!(delete_flows(&[address], keep_none).unwrap(), 3);
        assert_eq!(delete_flows(&[address], keep_none).unwrap(), 0, "they are gone");
        assert_eq!(
            delete_flows(&["::1".parse().unwrap()], keep_none).unwrap(),
            1,
            "others were left alone"
        );
    });
}

#[test]
fn flows_are_heard_of_as_they_begin_and_end_with_what_they_carried() {
    inside(|| {
        std::fs::write("/proc/sys/net/netfilter/nf_conntrack_acct", "1").unwrap();
        nft(
            "table inet t { chain c { type nat hook output priority -100; ip daddr 127.0.0.53 udp dport 53 dnat ip to 127.0.0.9:1500; }; }",
        );
        let (sender, heard) = std::sync::mpsc::channel();
        let listener = ConntrackListener::subscribe(move |news| sender.send(news).unwrap()).unwrap();
        let server = UdpSocket::bind("127.0.0.9:1500").unwrap();
        let client = UdpSocket::bind("127.0.0.2:0").unwrap();
        client.send_to(b"?", "127.0.0.53:53").unwrap();
        server.recv_from(&mut [0; 8]).unwrap();
        let next = || heard.recv_timeout(patience::scaled(Duration::from_secs(10))).unwrap();
        let ConntrackNews::Began(began) = next() else {
            panic!("it has not ended");
        };
        assert_eq!(began.original_destination, "127.0.0.53:53".parse().unwrap());
        assert_eq!(began.reply_source, server.local_addr().unwrap());
        assert_eq!(began.reply_destination, client.local_addr().unwrap());
        assert_eq!(delete_flows(&["127.0.0.2".parse().unwrap()], keep_none).unwrap(), 1);
        let ConntrackNews::Ended(ended) = next() else {
            panic!("it has ended");
        };
        let counted = ended.counted.unwrap();
        assert_eq!(
            (counted.packets, counted.bytes),
            (1, 29),
            "an IP header, a UDP header, an octet"
        );
        assert!(!listener.has_ended());
        drop(listener);
        assert!(heard.recv().is_err(), "nothing is heard any more");
    });
}

fn keep_none(_: &ConntrackEntry) -> bool {
    false
}

/// One lookup that somebody listens to.
fn look_up(source: &str, resolver: &str, port: u16) {
    let resolver = UdpSocket::bind((resolver, port)).unwrap();
    let pod = UdpSocket::bind((source, 0)).unwrap();
    pod.send_to(b"?", resolver.local_addr().unwrap()).unwrap();
    let (_, from) = resolver.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from, pod.local_addr().unwrap());
}
