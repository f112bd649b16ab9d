//! An upstream that takes 50 ms, with 20,000 queries in flight.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::agents::{Kind, Node};
use crate::load::{Load, Run, resident};
use crate::zone::{UPSTREAM, Zone};

const DELAY: Duration = Duration::from_millis(50);

/// What came of it, and the agent's resident memory before and after, in KiB.
pub(crate) struct Slow {
    pub(crate) run: Run,
    pub(crate) resident: [u64; 2],
}

pub(crate) fn run() -> Slow {
    let zone = Zone::new(0);
    let mut node = Node::start(Kind::Listening, &zone);
    let socket = node.replace_upstream(|| UdpSocket::bind((UPSTREAM, 53)).unwrap());
    let _ = set_socket_recv_buffer_size_force(&socket, 64 << 20);
    thread::spawn(move || answer_late(&socket));
    let before = resident(node.pid());
    let run = Load::of(&node, node.server(), zone.known(), 3)
        .outstanding(20_000)
        .run(node.pid());
    Slow {
        run,
        resident: [before, resident(node.pid())],
    }
}

/// Answers every A question with one address, each after the delay.
fn answer_late(socket: &UdpSocket) {
    let (send, due) = mpsc::channel::<(Instant, Vec<u8>, std::net::SocketAddr)>();
    let answering = socket.try_clone().unwrap();
    thread::spawn(move || {
        let mut waiting = VecDeque::new();
        loop {
            match waiting.pop_front() {
                None => match due.recv() {
                    Ok(one) => waiting.push_back(one),
                    Err(_) => return,
                },
                Some((at, answer, to)) => {
                    thread::sleep(Instant::saturating_duration_since(&at, Instant::now()));
                    let _ = answering.send_to(&answer, to);
                    waiting.extend(due.try_iter());
                }
            }
        }
    });
    let mut query = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let mut answer = query[..length].to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1]);
        if send.send((Instant::now() + DELAY, answer, from)).is_err() {
            return;
        }
    }
}
