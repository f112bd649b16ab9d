//! The replies that connections of clients wait for.

use bytes::Bytes;
use slotmap::{SlotMap, new_key_type};
use tokio::sync::oneshot;

use crate::client_quota::QuotaPermit;
use crate::event::DiscardReason;
use crate::stages::Client;

new_key_type! {
    /// The way of a reply to a connection.
    pub(super) struct ConnectionReplyKey;
}

/// A query that came over a connection.
#[derive(Debug)]
pub(crate) struct ConnectionQuery {
    pub(crate) client: Client,
    pub(crate) packet: Bytes,
    /// The place of the lookup among those of its client, or the limit that it has met.
    pub(crate) permit: Result<QuotaPermit, DiscardReason>,
    /// Where the reply is awaited. Dropped when the query deserves none.
    pub(crate) reply: oneshot::Sender<ConnectionReply>,
}

/// A reply to be written to a connection.
#[derive(Debug)]
pub(crate) struct ConnectionReply {
    pub(crate) bytes: Vec<u8>,
    /// Given back when the reply is written, so that a client that reads nothing keeps its places
    /// taken, or when the connection has ended.
    pub(crate) _permit: Option<QuotaPermit>,
}

/// The replies that are owed, of one worker.
#[derive(Debug, Default)]
pub(super) struct ConnectionReplies {
    owed: SlotMap<ConnectionReplyKey, OwedReply>,
}

#[derive(Debug)]
struct OwedReply {
    reply: oneshot::Sender<ConnectionReply>,
    permit: Option<QuotaPermit>,
    /// A lookup in flight owes it.
    is_pending: bool,
}

impl ConnectionReplies {
    /// Expects a reply.
    pub(super) fn expect(
        &mut self,
        reply: oneshot::Sender<ConnectionReply>,
        permit: Option<QuotaPermit>,
    ) -> ConnectionReplyKey {
        self.owed.insert(OwedReply {
            reply,
            permit,
            is_pending: false,
        })
    }

    /// A lookup is in flight that owes this reply.
    pub(super) fn track_pending(&mut self, key: ConnectionReplyKey) {
        if let Some(owed) = self.owed.get_mut(key) {
            owed.is_pending = true;
        }
    }

    /// The query was handled: there will be no reply unless a lookup in flight owes it.
    pub(super) fn handled(&mut self, key: ConnectionReplyKey) {
        if self.owed.get(key).is_some_and(|owed| !owed.is_pending) {
            self.owed.remove(key);
        }
    }

    /// Hands over a reply. A connection that has ended does not take it.
    pub(super) fn send(&mut self, key: ConnectionReplyKey, reply: &[u8]) {
        if let Some(owed) = self.owed.remove(key) {
            let reply = ConnectionReply {
                bytes: reply.to_vec(),
                _permit: owed.permit,
            };
            let _ = owed.reply.send(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_quota::ClientQuota;

    #[test]
    fn who_is_owed_nothing_learns_it_at_once() {
        let mut replies = ConnectionReplies::default();
        let (send, mut receive) = oneshot::channel();
        let key = replies.expect(send, None);
        replies.handled(key);
        assert!(matches!(receive.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn what_a_lookup_owes_arrives_after_its_query_was_handled() {
        let mut replies = ConnectionReplies::default();
        let (send, mut receive) = oneshot::channel();
        let key = replies.expect(send, None);
        replies.track_pending(key);
        replies.handled(key);
        replies.send(key, b"reply");
        assert_eq!(receive.try_recv().unwrap().bytes, b"reply");
        replies.send(key, b"again");
        assert!(replies.owed.is_empty());
    }

    #[test]
    fn a_place_is_taken_until_the_reply_is_written_or_nobody_takes_it() {
        let quota = ClientQuota::new(10, 10);
        let permit = || quota.take(std::net::Ipv4Addr::LOCALHOST.into()).ok();
        let mut replies = ConnectionReplies::default();
        let (send, receive) = oneshot::channel();
        let key = replies.expect(send, permit());
        replies.send(key, b"reply");
        let reply = receive.blocking_recv().unwrap();
        assert_eq!(quota.taken(), 1);
        drop(reply);
        assert_eq!(quota.taken(), 0);

        let (send, receive) = oneshot::channel();
        let key = replies.expect(send, permit());
        drop(receive);
        assert_eq!(quota.taken(), 1, "the lookup is in flight");
        replies.send(key, b"reply");
        assert_eq!(quota.taken(), 0);
    }
}
