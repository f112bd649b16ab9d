//! One TCP connection to an upstream, which carries many questions at once: each has an id that is
//! unique there, and answers come in any order (RFC 7766 §6.2.1.1).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep_until, timeout};

use crate::client_query::Query;
use crate::tcp_framing;

/// How long a connection may be idle. Less than servers commonly allow (10 s and more), so that we
/// close it and not they.
const IDLE: Duration = Duration::from_secs(8);

/// How long the TCP handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    state: Mutex<ConnectionState>,
    /// Notified when there is something to send, or nothing left to wait for.
    changed: Notify,
}

#[derive(Debug)]
struct ConnectionState {
    /// The questions that wait for their answers, by message id.
    asked: HashMap<u16, PendingQuestion, ahash::RandomState>,
    unsent: Vec<u8>,
    /// It takes no more questions.
    retired: bool,
    /// When a message last arrived.
    heard: Instant,
    /// Whether any message has arrived.
    was_in_use: bool,
}

#[derive(Debug)]
struct PendingQuestion {
    client: IpAddr,
    query: Query<'static>,
    answer: oneshot::Sender<Result<Vec<u8>, ConnectionLost>>,
    /// Answers under its id that were not its own.
    mismatched: usize,
}

/// The connection has ended before the answer came.
#[derive(Debug)]
pub(crate) struct ConnectionLost {
    pub(crate) error: io::Error,
    /// It had answered before, so the upstream is alive.
    pub(crate) was_in_use: bool,
}

/// A question on a connection. Dropping it gives the question up.
struct QuestionGuard<'a> {
    connection: &'a UpstreamConnection,
    id: u16,
    asked: Instant,
    until: Instant,
    mismatched: &'a mut usize,
}

impl UpstreamConnection {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(ConnectionState {
                asked: HashMap::default(),
                unsent: Vec::new(),
                retired: false,
                heard: Instant::now(),
                was_in_use: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Whether it takes questions.
    pub(crate) fn is_open(&self) -> bool {
        !self.state.lock().retired
    }

    /// How many questions it carries: all, and those of one client.
    pub(crate) fn load(&self, client: IpAddr) -> (usize, usize) {
        let state = self.state.lock();
        let of_client = state.asked.values().filter(|it| it.client == client).count();
        (state.asked.len(), of_client)
    }

    /// Asks. The caller gives it up at `until`.
    pub(crate) async fn ask(
        &self,
        client: IpAddr,
        query: &Query<'_>,
        until: Instant,
        mismatched: &mut usize,
    ) -> Result<Vec<u8>, ConnectionLost> {
        let (send, answer) = oneshot::channel();
        let id = {
            let mut state = self.state.lock();
            if state.retired {
                return Err(closed());
            }
            // There are far fewer than 65,536.
            let id = std::iter::repeat_with(rand::random)
                .find(|id| !state.asked.contains_key(id))
                .unwrap_or_default();
            tcp_framing::push(&mut state.unsent, &query.with_id(id));
            let asked = PendingQuestion {
                client,
                query: query.again(),
                answer: send,
                mismatched: 0,
            };
            state.asked.insert(id, asked);
            id
        };
        self.changed.notify_one();
        let _question = QuestionGuard {
            connection: self,
            id,
            asked: Instant::now(),
            until,
            mismatched,
        };
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Opens it, and carries questions and answers until it ends.
    pub(crate) async fn run(self: Arc<Self>, server: SocketAddr) {
        let connected = timeout(CONNECT, TcpStream::connect(server)).await;
        let error = match connected {
            Ok(Ok(mut stream)) => {
                // A question that waits for the acknowledgement of another is late.
                let _ = stream.set_nodelay(true);
                self.carry(&mut stream).await
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.end(&error);
    }

    /// Carries messages both ways, and returns the error that ended it.
    async fn carry(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Error {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut read, mut unsent) = (BytesMut::new(), BytesMut::new());
        let mut idle_until = Instant::now() + IDLE;
        loop {
            let is_idle = {
                let mut state = self.state.lock();
                unsent.extend_from_slice(&state.unsent);
                state.unsent.clear();
                if state.asked.is_empty() && (state.retired || Instant::now() >= idle_until) {
                    state.retired = true;
                    return io::ErrorKind::ConnectionAborted.into();
                }
                state.asked.is_empty()
            };
            tokio::select! {
                () = self.changed.notified() => {}
                written = writer.write_buf(&mut unsent), if !unsent.is_empty() => match written {
                    Ok(0) => return io::ErrorKind::WriteZero.into(),
                    Ok(_) => {}
                    Err(error) => return error,
                },
                received = reader.read_buf(&mut read) => match received {
                    Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                    Ok(_) => {
                        while let Some(answer) = tcp_framing::pop(&mut read) {
                            self.deliver(&answer);
                        }
                    }
                    Err(error) => return error,
                },
                () = sleep_until(idle_until.into()), if is_idle => {}
            }
            if !is_idle {
                idle_until = Instant::now() + IDLE;
            }
        }
    }

    fn deliver(&self, answer: &[u8]) {
        let Some(id) = answer.first_chunk().copied().map(u16::from_be_bytes) else {
            return;
        };
        let mut state = self.state.lock();
        state.heard = Instant::now();
        state.was_in_use = true;
        // Nobody waits for it any more, or it was never asked.
        let Some(asked) = state.asked.get_mut(&id) else {
            return;
        };
        if !asked.query.is_answered_by(id, answer) {
            asked.mismatched += 1;
            return;
        }
        let asked = state.asked.remove(&id);
        drop(state);
        if let Some(asked) = asked {
            // It may just have been given up.
            let _ = asked.answer.send(Ok(answer.to_vec()));
        }
    }

    fn end(&self, error: &io::Error) {
        let mut state = self.state.lock();
        state.retired = true;
        let was_in_use = state.was_in_use;
        for (_, asked) in std::mem::take(&mut state.asked) {
            let error = again(error);
            let _ = asked.answer.send(Err(ConnectionLost { error, was_in_use }));
        }
    }
}

impl Drop for QuestionGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.state.lock();
        let Some(asked) = state.asked.remove(&self.id) else {
            return;
        };
        *self.mismatched += asked.mismatched;
        // Nothing arrived until the deadline, so the next question goes over another connection. A
        // lookup that was given up earlier does not close the connection.
        if state.heard < self.asked && Instant::now() >= self.until {
            state.retired = true;
        }
        drop(state);
        self.connection.changed.notify_one();
    }
}

/// The error of a connection that was closed between being chosen and being asked.
fn closed() -> ConnectionLost {
    ConnectionLost {
        error: io::ErrorKind::ConnectionAborted.into(),
        was_in_use: true,
    }
}

/// A copy of a connection's error, for each question that waited on it.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
