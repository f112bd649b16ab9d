//! Network namespaces against the real kernel. Needs root; everything happens in namespaces made
//! here.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use netns::Namespace;

#[test]
fn a_new_namespace_has_a_loopback_that_is_up_and_no_other_link() {
    let namespace = Namespace::new().unwrap();
    assert_eq!(namespace.links().unwrap(), ["lo"]);
    namespace
        .run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        })
        .unwrap();
}

#[test]
fn a_namespace_is_not_the_one_it_was_made_from() {
    let (here, made) = (Namespace::current().unwrap(), Namespace::new().unwrap());
    assert!(!here.is_same_as(&made).unwrap());
    assert!(
        here.is_same_as(&Namespace::current().unwrap()).unwrap(),
        "the caller has not moved"
    );
    assert!(
        made.run(|| Namespace::current().unwrap().is_same_as(&made).unwrap())
            .unwrap()
    );
}

#[test]
fn a_veth_pair_carries_packets_between_two_namespaces_as_soon_as_it_stands() {
    let (left, right) = pair();
    let server = right.run(|| UdpSocket::bind("[fd00::2]:0").unwrap()).unwrap();
    let client = left.run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
    client.send_to(b"six", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 8];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from.ip()),
        (&b"six"[..], "fd00::1".parse().unwrap())
    );

    let listener = right.run(|| TcpListener::bind("10.0.0.2:0").unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut sent = left.run(|| TcpStream::connect(address).unwrap()).unwrap();
    sent.write_all(b"four").unwrap();
    drop(sent);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "four");
}

#[test]
fn a_router_forwards_between_two_namespaces() {
    let (left, router, right) = (
        Namespace::new().unwrap(),
        Namespace::new().unwrap(),
        Namespace::new().unwrap(),
    );
    for (namespace, link, subnet) in [(&left, "to-left", "10.1.0"), (&right, "to-right", "10.2.0")] {
        router.connect(link, namespace, "eth0").unwrap();
        router
            .add_address(link, format!("{subnet}.1/24").parse().unwrap())
            .unwrap();
        namespace
            .add_address("eth0", format!("{subnet}.2/24").parse().unwrap())
            .unwrap();
        let gateway = format!("{subnet}.1").parse().unwrap();
        namespace
            .add_route("0.0.0.0/0".parse().unwrap(), Some(gateway), "eth0")
            .unwrap();
    }
    router.set_sysctl("ipv4/ip_forward", "1").unwrap();
    assert_eq!(router.sysctl("ipv4/ip_forward").unwrap(), "1");

    let listener = right.run(|| TcpListener::bind("10.2.0.2:0").unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let connected = left.run(|| TcpStream::connect(address).unwrap()).unwrap();
    assert_eq!(
        connected.local_addr().unwrap().ip(),
        "10.1.0.2".parse::<IpAddr>().unwrap()
    );

    let routes = left.routes().unwrap();
    let default = routes.iter().find(|route| route.destination.prefix_len() == 0).unwrap();
    assert_eq!(default.via, Some("10.1.0.1".parse().unwrap()));
    assert_eq!(default.link.as_deref(), Some("eth0"));
}

#[test]
fn a_bridge_joins_its_ports() {
    let (node, left, right) = (
        Namespace::new().unwrap(),
        Namespace::new().unwrap(),
        Namespace::new().unwrap(),
    );
    node.connect("port-left", &left, "eth0").unwrap();
    node.connect("port-right", &right, "eth0").unwrap();
    node.add_bridge("bridge", &["port-left", "port-right"]).unwrap();
    left.add_address("eth0", "10.0.0.1/24".parse().unwrap()).unwrap();
    right.add_address("eth0", "10.0.0.2/24".parse().unwrap()).unwrap();
    let listener = right.run(|| TcpListener::bind("10.0.0.2:0").unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    left.run(|| TcpStream::connect(address).unwrap()).unwrap();
}

#[test]
fn a_link_can_be_moved_shrunk_and_deleted() {
    let (left, right) = pair();
    let elsewhere = Namespace::new().unwrap();
    left.set_mtu("eth0", 1400).unwrap();
    assert_eq!(left.mtu("eth0").unwrap(), 1400);
    left.move_link("eth0", &elsewhere).unwrap();
    assert_eq!(left.links().unwrap(), ["lo"]);
    assert_eq!(elsewhere.links().unwrap(), ["eth0", "lo"]);
    elsewhere.delete_link("eth0").unwrap();
    assert_eq!(right.links().unwrap(), ["lo"], "the other end goes with it");
}

#[test]
fn a_command_runs_inside_and_its_caller_stays_outside() {
    let (left, _right) = pair();
    let output = left.command("cat").arg("/proc/net/dev").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("eth0"));
    assert!(!left.is_same_as(&Namespace::current().unwrap()).unwrap());
}

#[test]
fn a_resident_serves_from_inside_until_it_is_dropped() {
    let (left, right) = pair();
    let thread = right.start_thread("echo").unwrap();
    let address = thread
        .run(async {
            let socket = tokio::net::UdpSocket::bind("10.0.0.2:0").await?;
            let address = socket.local_addr()?;
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                    socket.send_to(&buffer[..length], from).await.unwrap();
                }
            });
            io::Result::Ok(address)
        })
        .unwrap()
        .unwrap();
    let client = left.run(|| UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
    client.connect(address).unwrap();
    client.send(b"hello").unwrap();
    let mut buffer = [0; 64];
    assert_eq!(client.recv(&mut buffer).unwrap(), 5);

    drop(thread);
    client.send(b"hello").unwrap();
    assert_eq!(
        client.recv(&mut buffer).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused,
        "its socket is closed"
    );
}

#[test]
fn errors_say_what_was_tried_and_keep_their_kind() {
    let namespace = Namespace::new().unwrap();
    let error = namespace
        .add_address("eth7", "10.0.0.1/24".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let text = "cannot add the address 10.0.0.1/24 to eth7: there is no link eth7";
    assert_eq!(error.to_string(), text);

    let error = namespace
        .connect("a-name-that-is-too-long", &namespace, "b")
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);

    let error = namespace.set_sysctl("../kernel/hostname", "x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);

    namespace.connect("a", &namespace, "b").unwrap();
    namespace.set_sysctl("ipv6/conf/a/disable_ipv6", "1").unwrap();
    let error = namespace.add_address("a", "fd00::1/64".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("IPv6 is disabled"), "{error}");
}

#[test]
fn a_panic_inside_goes_on_in_the_caller() {
    let namespace = Namespace::new().unwrap();
    let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("inside")));
    assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "inside");
}

/// Two namespaces joined by a veth pair, 10.0.0.1 and fd00::1 on the left, .2 and ::2 on the right.
fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    left.connect("eth0", &right, "eth0").unwrap();
    for (namespace, last) in [(&left, 1), (&right, 2)] {
        namespace
            .add_address("eth0", format!("10.0.0.{last}/24").parse().unwrap())
            .unwrap();
        namespace
            .add_address("eth0", format!("fd00::{last}/64").parse().unwrap())
            .unwrap();
    }
    (left, right)
}
