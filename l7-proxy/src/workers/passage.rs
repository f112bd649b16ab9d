//! One connection: reads, writes and deadlines around a conversation.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use clock::Time;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsStream;

use super::dial::{self, DialError, Route};
use super::relay::Relay;
use super::side::PassageSide;
use super::signals::SignalListener;
use super::{reset, secure};
use crate::config::DialOptions;
use crate::conversation::{Conversation, Ending, FAREWELL_TIME};
use crate::judge::Judge;

/// One connection and its sockets.
pub(super) struct Passage<J: Judge> {
    judge: Arc<J>,
    conversation: Conversation<J>,
    client: ClientSide,
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

enum ClientSide {
    Connected(PassageSide),
    Securing(Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>>>>),
    /// It and the proxy did not agree on TLS.
    Gone,
}

enum ServerSide {
    Unknown,
    Dialling(Pin<Box<dyn Future<Output = Result<PassageSide, DialError>>>>),
    Connected(ConnectedServer),
    /// It is over, or was never reached.
    Gone,
}

struct ConnectedServer {
    side: PassageSide,
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
            client: ClientSide::Connected(PassageSide::Clear(client)),
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
        match ending {
            Ending::Reset => self.reset(),
            Ending::Close => self.say_farewell().await,
        }
    }

    fn reset(&self) {
        if let ClientSide::Connected(client) = &self.client {
            reset(client.tcp());
        }
        if let ServerSide::Connected(server) = &self.server {
            reset(server.side.tcp());
        }
    }

    /// Sends what TLS holds back, and its end. In clear the kernel does so.
    async fn say_farewell(&mut self) {
        let server = match &mut self.server {
            ServerSide::Connected(server) if !server.is_shut => Some(&mut server.side),
            _ => None,
        };
        let client = match &mut self.client {
            ClientSide::Connected(side) if !self.client_is_shut => Some(side),
            _ => None,
        };
        let secured = |side: &&mut PassageSide| matches!(side, PassageSide::Secured(_));
        for side in server.into_iter().chain(client).filter(secured) {
            // A peer that takes nothing more is let go.
            let _ = timeout(FAREWELL_TIME, poll_fn(|context| side.poll_shut(context))).await;
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
        let mut has_moved = self.poll_handshake(context, now) | self.poll_dial(context, now);
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

    /// Agrees on TLS with the client, where it ends here.
    fn poll_handshake(&mut self, context: &mut Context<'_>, now: Time) -> bool {
        if let Some(termination) = self.conversation.wants_handshake()
            && let ClientSide::Connected(PassageSide::Clear(_)) = &self.client
        {
            let termination = termination.clone();
            let hello = self.conversation.take_hello();
            let ClientSide::Connected(PassageSide::Clear(stream)) =
                std::mem::replace(&mut self.client, ClientSide::Gone)
            else {
                return false;
            };
            self.client = ClientSide::Securing(Box::pin(secure::accept(termination, hello, stream)));
        }
        let ClientSide::Securing(securing) = &mut self.client else {
            return false;
        };
        match securing.as_mut().poll(context) {
            Poll::Pending => return false,
            Poll::Ready(Ok(stream)) => {
                self.client = ClientSide::Connected(PassageSide::Secured(Box::new(stream)));
                self.conversation.client_secured(now);
            }
            Poll::Ready(Err(error)) => {
                self.client = ClientSide::Gone;
                self.conversation.handshake_failed(&self.judge, &error.to_string());
            }
        }
        true
    }

    fn poll_dial(&mut self, context: &mut Context<'_>, now: Time) -> bool {
        if self.conversation.server_is_done() {
            self.server = ServerSide::Gone;
            return false;
        }
        if let ServerSide::Unknown = self.server
            && self.conversation.wants_dial()
        {
            let termination = self.conversation.termination().cloned();
            self.server = ServerSide::Dialling(Box::pin(dial::reach(self.route, self.dial, termination)));
        }
        let ServerSide::Dialling(dialling) = &mut self.server else {
            return false;
        };
        match dialling.as_mut().poll(context) {
            Poll::Pending => return false,
            Poll::Ready(Ok(side)) => {
                self.server = ServerSide::Connected(ConnectedServer {
                    side,
                    is_shut: false,
                    is_deaf: false,
                });
                self.conversation.connected(&self.judge, now);
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(source = %self.route.source, server = %self.route.asked, %error, "cannot reach a server");
                self.server = ServerSide::Gone;
                self.conversation.dial_failed(&self.judge, error.failure(), now);
            }
        }
        true
    }

    fn write(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut has_moved = false;
        if let ServerSide::Connected(server) = &mut self.server
            && !server.is_deaf
        {
            match write_and_flush(&mut server.side, context, self.conversation.for_server()) {
                Ok(0) => {}
                Ok(written) => {
                    self.conversation.sent_to_server(written);
                    has_moved = true;
                }
                Err(_) => server.is_deaf = true,
            }
            if self.conversation.ends_server() && !server.is_shut {
                server.is_shut = server.side.poll_shut(context).is_ready();
            }
        }
        let ClientSide::Connected(client) = &mut self.client else {
            return Ok(has_moved);
        };
        let written = write_and_flush(client, context, self.conversation.for_client())?;
        if written > 0 {
            self.conversation.sent_to_client(written);
            has_moved = true;
        }
        if self.conversation.ends_client() && !self.client_is_shut {
            self.client_is_shut = client.poll_shut(context).is_ready();
        }
        Ok(has_moved)
    }

    fn read(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut has_moved = false;
        if let ClientSide::Connected(client) = &mut self.client
            && client.poll_readable(context)?.is_ready()
            && let Some(space) = self.conversation.client_space()
        {
            let room = space.capacity() - space.len();
            match client.poll_fill(context, space) {
                Poll::Pending => {}
                Poll::Ready(Ok(count @ 1..)) => {
                    self.conversation.client_sent(count, room);
                    has_moved = true;
                }
                Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                Poll::Ready(_) => {
                    self.conversation.client_ended();
                    has_moved = true;
                }
            }
        }
        if let ServerSide::Connected(server) = &mut self.server
            && server.side.poll_readable(context)?.is_ready()
            && let Some(space) = self.conversation.server_space()
        {
            let room = space.capacity() - space.len();
            match server.side.poll_fill(context, space) {
                Poll::Pending => {}
                Poll::Ready(Ok(0)) if server.is_deaf && self.conversation.for_client().concat().is_empty() => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Poll::Ready(Ok(0)) => {
                    self.conversation.server_ended();
                    has_moved = true;
                }
                Poll::Ready(Ok(count)) => {
                    self.conversation.server_sent(count, room);
                    has_moved = true;
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.conversation.server_broke_off();
                    has_moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(has_moved)
    }

    fn poll_relay(&mut self, context: &mut Context<'_>, now: Time) -> Poll<Ending> {
        let (Some(relay), ClientSide::Connected(client), ServerSide::Connected(server)) =
            (&mut self.relay, &self.client, &self.server)
        else {
            return Poll::Ready(Ending::Reset);
        };
        let before = relay.moved();
        let over = relay.poll(context, client.tcp(), server.side.tcp());
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
            self.reset();
        }
        let spliced = self.relay.as_ref().map_or((0, 0), |relay| relay.moved());
        self.conversation.closed(&self.judge, spliced);
    }
}

/// How many octets were taken; none while the socket takes none.
fn write_and_flush(side: &mut PassageSide, context: &mut Context<'_>, pending: [&[u8]; 2]) -> io::Result<usize> {
    let written = side.write(context, pending)?;
    side.flush(context)?;
    Ok(written)
}
