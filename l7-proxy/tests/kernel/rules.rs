//! What happens to open connections when rules, agents or limits change.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use l7_proxy::PassageLimits;

use super::lab::{Lab, LabJudge, OUTSIDE, echo, http_origin};
use super::opaque::open_tunnel;

#[test]
fn open_connections_are_judged_again_when_rules_change() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let proxy = lab.proxy(&judge);
    lab.serve(443, echo);
    let mut clients: Vec<_> = (0..4).map(|_| open_tunnel(&lab)).collect();
    judge.generation.store(1, Ordering::Relaxed);
    proxy.rules_changed();
    for client in &mut clients {
        client.write_all(b"still").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    judge.refuses_all.store(true, Ordering::Relaxed);
    judge.generation.store(2, Ordering::Relaxed);
    proxy.rules_changed();
    for client in &mut clients {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn without_a_proxy_nothing_is_opened() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let proxy = lab.proxy(&judge);
    lab.serve(443, echo);
    let mut client = open_tunnel(&lab);
    drop(proxy);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    for address in OUTSIDE {
        let error = lab.connect(address, 443).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn connections_to_the_proxy_itself_are_reset() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let proxy = lab.proxy(&judge);
    for address in proxy.addresses() {
        assert_reset(lab.connect(&address.ip().to_string(), address.port()));
    }
    judge.noted("Loop");
}

#[test]
fn a_pod_with_too_many_connections_is_told_at_once() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let limits = PassageLimits {
        connections_of_a_pod: 3,
        ..PassageLimits::default()
    };
    let proxy = lab.proxy_with(&judge, limits);
    lab.serve(443, echo);
    let clients: Vec<_> = (0..3).map(|_| open_tunnel(&lab)).collect();
    assert_reset(lab.connect(OUTSIDE[0], 443));
    judge.noted("PodLimit");
    drop(clients);
    let is_empty = || proxy.open_connections() == 0;
    assert!(patience::wait(Duration::from_secs(10), Duration::from_millis(5), is_empty).is_some());
    open_tunnel(&lab);
}

#[test]
fn an_upgrade_loses_no_connection() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let old = lab.proxy(&judge);
    lab.serve(443, echo);
    lab.serve(80, http_origin);
    let mut tunnel = open_tunnel(&lab);
    let mut http = lab.connect(OUTSIDE[0], 80).unwrap();
    let request = b"GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut buffer = [0; 4096];
    http.write_all(request).unwrap();
    let count = http.read(&mut buffer).unwrap();
    assert!(!String::from_utf8_lossy(&buffer[..count]).contains("Connection: close"));
    let new = lab.proxy(&judge);
    old.drain();
    for _ in 0..20 {
        let mut client = open_tunnel(&lab);
        client.write_all(b"new").unwrap();
        client.read_exact(&mut [0; 3]).unwrap();
    }
    // What was open lives on, and HTTP is told to come again.
    tunnel.write_all(b"old").unwrap();
    tunnel.read_exact(&mut [0; 3]).unwrap();
    http.write_all(request).unwrap();
    let mut rest = Vec::new();
    http.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(
        rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.contains("Connection: close\r\n"),
        "{rest}"
    );
    let is_left = || new.open_connections() + old.open_connections() == 1;
    let found = patience::wait(Duration::from_secs(10), Duration::from_millis(5), is_left);
    assert!(found.is_some(), "the tunnel alone is left");
}

/// The reset may come before the client has asked how its connecting went.
fn assert_reset(connected: std::io::Result<TcpStream>) {
    let error = connected.and_then(|mut client| client.read(&mut [0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
