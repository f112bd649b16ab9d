//! What idle connections take in memory. A program of its own, so that no other test counts.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, and not what they call"
)]

#[path = "../kernel/lab.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod lab;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use lab::{Lab, LabJudge, OUTSIDE};

/// What the process holds in memory, in octets.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

#[test]
fn an_idle_connection_takes_little_memory() {
    const COUNT: usize = 2000;
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let proxy = lab.proxy(&judge);
    let open = |count: usize| -> Vec<TcpStream> {
        let clients = (0..count).map(|_| {
            let mut client = lab.connect(OUTSIDE[0], 80).unwrap();
            client.write_all(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let count = client.read(&mut [0; 1000]).unwrap();
            assert!(count > 80);
            client
        });
        clients.collect()
    };
    let _warm = open(100);
    let before = resident();
    let _clients = open(COUNT);
    let each = resident().saturating_sub(before) / COUNT;
    println!("an idle connection: {each} octets");
    assert_eq!(proxy.open_connections(), COUNT + 100);
    assert!(each <= 8 << 10, "{each} octets");
}
