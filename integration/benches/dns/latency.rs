//! One query at a time: what Namegate adds to asking the upstream directly.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use lab::dns;

use crate::agents::Node;
use crate::zone::{UPSTREAM, Zone};

/// Of one round: enough for a p99.
const QUERIES: usize = 2_500;

/// What one query at a time took in one round, both ways.
pub(crate) struct Latency {
    pub(crate) direct: Times,
    pub(crate) through: Times,
}

impl Latency {
    /// What is added to one of its figures.
    pub(crate) fn added(&self, of: impl Fn(&Times) -> f64) -> f64 {
        of(&self.through) - of(&self.direct)
    }
}

/// In microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) median: f64,
    pub(crate) p99: f64,
}

/// `bare` is a node without an agent, where a pod may ask the upstream itself.
pub(crate) fn known(node: &Node, bare: &Node, zone: &Zone) -> Latency {
    known_through(node, node.server(), bare, zone)
}

/// Of names that nobody has asked before this round.
pub(crate) fn new(node: &Node, bare: &Node, zone: &Zone, round: usize) -> Latency {
    measure((node, node.server()), bare, &zone.next_lone(round), 0)
}

/// Of known names, through another server on a node.
pub(crate) fn known_through(node: &Node, server: SocketAddr, bare: &Node, zone: &Zone) -> Latency {
    measure((node, server), bare, &zone.known(), 1)
}

fn measure(through: (&Node, SocketAddr), bare: &Node, names: &Path, warm_up: usize) -> Latency {
    let (node, server) = through;
    let text = fs::read_to_string(names).unwrap();
    let queries: Vec<Vec<u8>> = text.lines().take(QUERIES).map(query).collect();
    let ask = |node: &Node, server| node.lab.pod(0).namespace().run(|| ask_all(server, &queries)).unwrap();
    for _ in 0..warm_up {
        ask(node, server);
    }
    Latency {
        direct: ask(bare, dns(UPSTREAM)),
        through: ask(node, server),
    }
}

fn ask_all(server: SocketAddr, queries: &[Vec<u8>]) -> Times {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = [0; 2048];
    let mut times: Vec<Duration> = queries
        .iter()
        .map(|query| {
            let began = Instant::now();
            socket.send(query).unwrap();
            socket.recv(&mut answer).expect("an answer");
            let took = began.elapsed();
            assert_eq!((answer[3] & 0xf, answer[7]), (0, 2), "NOERROR, and two addresses");
            took
        })
        .collect();
    times.sort_unstable();
    let micros = |place: usize| times[place].as_secs_f64() * 1e6;
    Times {
        median: micros(times.len() / 2),
        p99: micros(times.len() * 99 / 100),
    }
}

/// `name A`, as dnsperf reads it, as a packet.
fn query(line: &str) -> Vec<u8> {
    let name = line.split_whitespace().next().unwrap();
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}
