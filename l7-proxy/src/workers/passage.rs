//! One connection: reads, writes and deadlines around a conversation.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use clock::Time;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::dial::{self, Route};
use super::relay::Relay;
use super::signals::SignalListener;
use super::{accepting, reset};
use crate::config::DialOptions;
use crate::conversation::{Conversation, Ending};
use crate::judge::Judge;

/// One connection and its sockets.
pub(super) struct Passage<J: Judge> {
    judge: Arc<J>,
    conversation: Conversation<J>,
    client: TcpStream,
    server: ServerSide,
    route: Route,
    dial: DialOptions,
    /// What passes on what is not read.
    relay: Option<Box<Relay>>,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether the client was told that nothing more comes.
    client_is_shut: bool,
    drains: bool,
}

enum ServerSide {
    Unknown,
    Dialling(Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>),
    Connected(ConnectedServer),
    /// It is over, or was never reached.
    Gone,
}

struct ConnectedServer {
    stream: TcpStream,
    /// Whether it was told that nothing more comes.
    is_shut: bool,
    /// Whether it takes nothing more. What it has sent before can still be read.
    is_deaf: bool,
}

impl<J: Judge> Passage<J> {
    pub(super) fn new(
        judge: Arc<J>,
        conversation: Conversation<J>,
        client: TcpStream,
        route: Route,
        dial: DialOptions,
    ) -> Self {
        Self {
            judge,
            conversation,
            client,
            server: ServerSide::Unknown,
            route,
            dial,
            relay: None,
            alarm: None,
            client_is_shut: false,
            drains: false,
        }
    }

    pub(super) async fn run(mut self, signal: &SignalListener) {
        let ending = poll_fn(|context| self.poll(context, signal)).await;
        if ending == Ending::Reset {
            reset(&self.client);
            if let ServerSide::Connected(server) = &self.server {
                reset(&server.stream);
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, signal: &SignalListener) -> Poll<Ending> {
        signal.wakes(context.waker());
        loop {
            let now = clock::now();
            if signal.judges_again() {
                self.conversation.judge_again(&self.judge);
            }
            if signal.drains() && !self.drains {
                self.drains = true;
                self.conversation.drain();
            }
            self.conversation.time_passed(&self.judge, now);
            self.conversation.advance(&self.judge, now);
            if let Some(ending) = self.conversation.ending() {
                return Poll::Ready(ending);
            }
            let has_moved = match self.relay.is_some() {
                true => match self.poll_relay(context, now) {
                    Poll::Ready(ending) => return Poll::Ready(ending),
                    Poll::Pending => false,
                },
                false => match self.move_octets(context, now) {
                    Ok(has_moved) => has_moved,
                    // Either side is gone, and the other is to hear of it in the same way.
                    Err(_) => return Poll::Ready(Ending::Reset),
                },
            };
            if !has_moved {
                self.conversation.release_memory();
                ready!(self.poll_alarm(context, now));
            }
        }
    }

    /// Does what can be done at once. Tells whether anything could.
    fn move_octets(&mut self, context: &mut Context<'_>, now: Time) -> io::Result<bool> {
        let mut has_moved = self.poll_dial(context, now);
        has_moved |= self.write(context)?;
        if self.conversation.may_splice()
            && let ServerSide::Connected(server) = &self.server
            && !server.is_deaf
        {
            let (client_ended, server_ended) = self.conversation.ended_sides();
            self.relay = Some(Box::new(Relay::new(
                (client_ended, server.is_shut),
                (server_ended, self.client_is_shut),
            )));
            return Ok(true);
        }
        has_moved |= self.read(context)?;
        Ok(has_moved)
    }

    fn poll_dial(&mut self, context: &mut Context<'_>, now: Time) -> bool {
        if self.conversation.server_is_done() {
            self.server = ServerSide::Gone;
            return false;
        }
        if let ServerSide::Unknown = self.server
            && self.conversation.wants_dial()
        {
            self.server = ServerSide::Dialling(Box::pin(dial::dial(self.route, self.dial)));
        }
        let ServerSide::Dialling(dialling) = &mut self.server else {
            return false;
        };
        match dialling.as_mut().poll(context) {
            Poll::Pending => return false,
            Poll::Ready(Ok(stream)) => {
                accepting::prepare(&stream);
                self.server = ServerSide::Connected(ConnectedServer {
                    stream,
                    is_shut: false,
                    is_deaf: false,
                });
                self.conversation.connected(&self.judge, now);
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(source = %self.route.source, server = %self.route.asked, %error, "cannot reach a server");
                self.server = ServerSide::Gone;
                self.conversation.dial_failed(&self.judge, dial::failure(&error), now);
            }
        }
        true
    }

    fn write(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut has_moved = false;
        if let ServerSide::Connected(server) = &mut self.server
            && !server.is_deaf
        {
            match write_pending(&mut server.stream, context, self.conversation.for_server()) {
                Ok(0) => {}
                Ok(written) => {
                    self.conversation.sent_to_server(written);
                    has_moved = true;
                }
                Err(_) => server.is_deaf = true,
            }
            if self.conversation.ends_server() && !server.is_shut {
                server.is_shut = true;
                let _ = SockRef::from(&server.stream).shutdown(Shutdown::Write);
            }
        }
        let written = write_pending(&mut self.client, context, self.conversation.for_client())?;
        if written > 0 {
            self.conversation.sent_to_client(written);
            has_moved = true;
        }
        if self.conversation.ends_client() && !self.client_is_shut {
            self.client_is_shut = true;
            let _ = SockRef::from(&self.client).shutdown(Shutdown::Write);
        }
        Ok(has_moved)
    }

    fn read(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut has_moved = false;
        if self.client.poll_read_ready(context)?.is_ready()
            && let Some(space) = self.conversation.client_space()
        {
            let room = space.capacity() - space.len();
            match pin!(self.client.read_buf(space)).poll(context)? {
                Poll::Pending => {}
                Poll::Ready(0) => {
                    self.conversation.client_ended();
                    has_moved = true;
                }
                Poll::Ready(count) => {
                    self.conversation.client_sent(count, room);
                    has_moved = true;
                }
            }
        }
        if let ServerSide::Connected(server) = &mut self.server
            && server.stream.poll_read_ready(context)?.is_ready()
            && let Some(space) = self.conversation.server_space()
        {
            let room = space.capacity() - space.len();
            match pin!(server.stream.read_buf(space)).poll(context)? {
                Poll::Pending => {}
                Poll::Ready(0) if server.is_deaf && self.conversation.for_client().concat().is_empty() => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Poll::Ready(0) => {
                    self.conversation.server_ended();
                    has_moved = true;
                }
                Poll::Ready(count) => {
                    self.conversation.server_sent(count, room);
                    has_moved = true;
                }
            }
        }
        Ok(has_moved)
    }

    fn poll_relay(&mut self, context: &mut Context<'_>, now: Time) -> Poll<Ending> {
        let (Some(relay), ServerSide::Connected(server)) = (&mut self.relay, &self.server) else {
            return Poll::Ready(Ending::Reset);
        };
        let before = relay.moved();
        let over = relay.poll(context, &self.client, &server.stream);
        if relay.moved() != before {
            self.conversation.spliced(now);
        }
        over.map(|outcome| match outcome {
            Ok(()) => Ending::Close,
            Err(_) => Ending::Reset,
        })
    }

    /// Ready when a deadline has come. A deadline that moves away leaves the alarm as it is: it
    /// rings for nothing once, which costs less than to set it for each request.
    fn poll_alarm(&mut self, context: &mut Context<'_>, now: Time) -> Poll<()> {
        let Some(deadline) = self.conversation.deadline() else {
            return Poll::Pending;
        };
        let at = Instant::now() + deadline.since(now);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if at < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(at);
        }
        alarm.as_mut().poll(context)
    }
}

impl<J: Judge> Drop for Passage<J> {
    fn drop(&mut self) {
        // Dropped before its end when the worker stops.
        if self.conversation.ending().is_none() && self.relay.as_ref().is_none_or(|relay| !relay.is_over()) {
            reset(&self.client);
            if let ServerSide::Connected(server) = &self.server {
                reset(&server.stream);
            }
        }
        let spliced = self.relay.as_ref().map_or((0, 0), |relay| relay.moved());
        self.conversation.closed(&self.judge, spliced);
    }
}

/// How many octets were written; none while the socket takes none.
fn write_pending(stream: &mut TcpStream, context: &mut Context<'_>, pending: [&[u8]; 2]) -> io::Result<usize> {
    let written = match pending {
        [[], []] => return Ok(0),
        [only, []] | [[], only] => Pin::new(stream).poll_write(context, only)?,
        [first, second] => {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            Pin::new(stream).poll_write_vectored(context, &slices)?
        }
    };
    Ok(match written {
        Poll::Ready(written) => written,
        Poll::Pending => 0,
    })
}
