//! What the lookups of a worker send, without a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::lookup_key::LookupKey;
use crate::reply::ClientReply;

/// A query that was sent to an upstream: its socket, and its id there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentQuery {
    pub(crate) socket: u32,
    pub(crate) id: u16,
}

/// Sends for the lookups. `W` is the way of a reply to its client, which is opaque here.
pub(crate) trait LookupOutput<W> {
    /// Sends a query under a random id from a random port, and expects its answer there.
    fn send_query(
        &mut self,
        now: Instant,
        server: SocketAddr,
        lookup: LookupKey,
        query: &[u8],
    ) -> io::Result<SentQuery>;
    /// Expects the answer to this query no more.
    fn forget_query(&mut self, sent: SentQuery);
    /// Asks over a connection, from the client's share.
    /// [`Lookups::exchanged`](super::Lookups::exchanged) gets the result, `until` at the latest.
    fn query_over_connection(
        &mut self,
        server: SocketAddr,
        client: IpAddr,
        lookup: LookupKey,
        query: &[u8],
        until: Instant,
    );
    /// Counts a lookup in flight that will be answered on this path.
    fn track_pending(&mut self, reply_path: &W);
    /// Counts the end of such a lookup. Its reply follows within the batch.
    fn untrack_pending(&mut self, reply_path: &W);
    /// Sends a reply.
    fn send_reply(&mut self, reply_path: &W, client: SocketAddr, reply: &ClientReply<'_>);
}
