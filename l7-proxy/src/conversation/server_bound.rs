//! The lane to the server. What leaves through it leaves against a proof.

use std::marker::PhantomData;

use super::lane::Lane;

/// The lane to the server: an octet is cleared or written only where a proof `P` is at hand, which
/// only the judge can make.
#[derive(Debug)]
pub(super) struct ServerBound<P> {
    lane: Lane,
    proof: PhantomData<fn(P)>,
}

impl<P> ServerBound<P> {
    pub(super) fn new() -> Self {
        Self {
            lane: Lane::default(),
            proof: PhantomData,
        }
    }

    /// Lets the first of the fresh octets leave.
    pub(super) fn clear(&mut self, _judged: &P, count: usize) {
        self.lane.clear(count);
    }

    /// Lets a head leave in place of the first octets, from which it was read.
    pub(super) fn forward(&mut self, _judged: &P, read_from: usize, head: Vec<u8>) {
        self.lane.replace(read_from, head);
    }

    /// Drops the first of the fresh octets: a refused head.
    pub(super) fn drop_head(&mut self, count: usize) {
        self.lane.replace(count, Vec::new());
    }

    pub(super) fn discard_fresh(&mut self) {
        self.lane.discard_fresh();
    }

    pub(super) fn fresh(&self) -> &[u8] {
        self.lane.fresh()
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.lane.is_flushed()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lane.has_ended
    }

    pub(super) fn held(&self) -> usize {
        self.lane.held()
    }

    pub(super) fn pending(&self) -> [&[u8]; 2] {
        self.lane.pending()
    }

    pub(super) fn octets_sent(&self) -> u64 {
        self.lane.sent
    }

    /// For what comes from the client and what the server has taken; nothing is cleared by it.
    pub(super) fn io(&mut self) -> LaneIo<'_> {
        LaneIo(&mut self.lane)
    }
}

/// The side of a lane that sockets see.
pub(super) struct LaneIo<'a>(&'a mut Lane);

impl<'a> LaneIo<'a> {
    pub(super) fn space(self) -> &'a mut Vec<u8> {
        self.0.space()
    }

    pub(super) fn came(self, count: usize, room: usize) {
        self.0.came(count, room);
    }

    pub(super) fn ended(self) {
        self.0.has_ended = true;
    }

    pub(super) fn sent(self, count: usize) {
        self.0.sent(count);
    }

    pub(super) fn release(self) {
        self.0.release();
    }
}
