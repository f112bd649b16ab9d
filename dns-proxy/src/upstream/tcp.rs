//! One question to a resolver over TCP.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::Failure;
use crate::frame;
use crate::gate::{Event, Gate, Transport, UpstreamOutcome};
use crate::message::Query;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) server: SocketAddr,
    pub(crate) answer: Result<Vec<u8>, Failure>,
    took: Duration,
    /// Answers that did not belong to the question.
    mismatched: usize,
}

impl Exchanged {
    /// Counts it.
    pub(crate) fn observe<G: Gate>(&self, gate: &G, desk: &mut G::Desk) {
        let outcome = match &self.answer {
            Ok(_) => UpstreamOutcome::Answered,
            Err(failure) => failure.outcome(),
        };
        let outcomes = std::iter::repeat_n(UpstreamOutcome::Mismatched, self.mismatched).chain([outcome]);
        for outcome in outcomes {
            let event = Event::Upstream {
                server: self.server,
                transport: Transport::Tcp,
                outcome,
                took: self.took,
            };
            gate.observe(desk, event);
        }
    }
}

/// Asks `server`, under a fresh random id and on a connection of its own, until `until`.
pub(crate) async fn exchange(server: SocketAddr, query: &Query<'_>, until: Instant) -> Exchanged {
    let began = Instant::now();
    let mut mismatched = 0;
    let id = rand::random();
    let message = query.with_id(id);
    let belongs = |answer: &[u8]| {
        let belongs = query.is_answered_by(id, answer);
        mismatched += usize::from(!belongs);
        belongs
    };
    let answer = match timeout_at(until.into(), ask(server, &message, belongs)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::Unreachable { server, error }),
        Err(_) => Err(Failure::TimedOut { server }),
    };
    Exchanged {
        server,
        answer,
        took: began.elapsed(),
        mismatched,
    }
}

/// The first answer that `belongs`. Has no end of its own: the caller sets a time.
async fn ask(server: SocketAddr, message: &[u8], mut belongs: impl FnMut(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = Vec::with_capacity(2 + message.len());
    frame::push(&mut framed, message);
    stream.write_all(&framed).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        if belongs(&answer) {
            return Ok(answer);
        }
    }
}
