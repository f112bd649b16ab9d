//! What the lookups of a worker send, without a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::lookup_key::LookupKey;
use crate::reply::ClientReply;

/// Under what a query was sent to an upstream: which socket, which id on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentQuery {
    pub(crate) socket: u32,
    pub(crate) id: u16,
}

/// What sends. `W` is how an answer gets back to its client, of which nothing is known here.
pub(crate) trait LookupOutput<W> {
    /// Sends a query under a random id from a random port, and remembers whose answer comes there.
    fn send_query(
        &mut self,
        now: Instant,
        server: SocketAddr,
        lookup: LookupKey,
        query: &[u8],
    ) -> io::Result<SentQuery>;
    /// Forgets whose answer comes there.
    fn forget_query(&mut self, sent: SentQuery);
    /// Asks over TCP, out of the client's share; [`Lookups::exchanged`] is told what came of it,
    /// `until` at the latest.
    fn query_over_connection(
        &mut self,
        server: SocketAddr,
        client: IpAddr,
        lookup: LookupKey,
        query: &[u8],
        until: Instant,
    );
    /// Notes that a lookup in flight is to be answered on this way.
    fn track_pending(&mut self, reply_path: &W);
    /// Notes that such a lookup has ended; its reply follows within the batch.
    fn untrack_pending(&mut self, reply_path: &W);
    /// Sends a reply.
    fn send_reply(&mut self, reply_path: &W, client: SocketAddr, reply: &ClientReply<'_>);
}
