//! What is on its way in one direction.

use std::mem;

/// What the first read of a burst may take, in octets.
const SMALLEST_READ: usize = 16 << 10;
/// What reads of a long body grow to, in octets.
const LARGEST_READ: usize = 256 << 10;

/// Octets of one direction: some that the proxy wrote itself, behind them those that came and may
/// leave (they are *cleared*), and behind them those that came and are not looked at yet.
///
/// Holds no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct Lane {
    written: Vec<u8>,
    written_sent: usize,
    came: Vec<u8>,
    /// Where in `came` the cleared octets begin.
    begin: usize,
    cleared: usize,
    read_size: usize,
    /// Whether the sender has ended (FIN).
    pub(super) has_ended: bool,
    /// How many octets have left.
    pub(super) sent: u64,
}

impl Lane {
    /// Where to put what comes, with room for at least some KiB.
    pub(super) fn space(&mut self) -> &mut Vec<u8> {
        // Octets move only when at least as many have left, so that a slow receiver costs no more
        // than one copy of each.
        if self.begin > 0 && self.begin >= self.came.len() - self.begin {
            self.came.drain(..self.begin);
            self.begin = 0;
        }
        self.came.reserve(self.read_size.max(SMALLEST_READ));
        &mut self.came
    }

    /// A read has put this many octets there, out of so many that it had room for.
    pub(super) fn came(&mut self, count: usize, room: usize) {
        self.read_size = match count == room {
            true => (room * 2).clamp(SMALLEST_READ, LARGEST_READ),
            false => SMALLEST_READ,
        };
    }

    /// How many octets are held.
    pub(super) fn held(&self) -> usize {
        self.came.len() - self.begin + self.written.len() - self.written_sent
    }

    /// What came and is not cleared.
    pub(super) fn fresh(&self) -> &[u8] {
        &self.came[self.begin + self.cleared..]
    }

    /// Lets the first of the fresh octets leave.
    pub(super) fn clear(&mut self, count: usize) {
        self.cleared = (self.cleared + count).min(self.came.len() - self.begin);
    }

    /// Takes the first of the fresh octets away, and puts others in their place. Everything before
    /// them has left.
    pub(super) fn replace(&mut self, count: usize, with: Vec<u8>) {
        debug_assert!(self.is_flushed());
        self.begin = (self.begin + count).min(self.came.len());
        self.written = with;
        self.written_sent = 0;
        self.forget_empty();
    }

    /// Takes away everything that is not cleared.
    pub(super) fn discard_fresh(&mut self) {
        self.came.truncate(self.begin + self.cleared);
        self.forget_empty();
    }

    /// What may leave, in order.
    pub(super) fn pending(&self) -> [&[u8]; 2] {
        [
            &self.written[self.written_sent..],
            &self.came[self.begin..self.begin + self.cleared],
        ]
    }

    /// Whether nothing waits to leave.
    pub(super) fn is_flushed(&self) -> bool {
        self.written_sent == self.written.len() && self.cleared == 0
    }

    /// The first octets of what was pending have left.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count as u64;
        let of_written = count.min(self.written.len() - self.written_sent);
        self.written_sent += of_written;
        let of_cleared = (count - of_written).min(self.cleared);
        self.begin += of_cleared;
        self.cleared -= of_cleared;
        self.forget_empty();
    }

    fn forget_empty(&mut self) {
        if self.written_sent == self.written.len() {
            self.written.clear();
            self.written_sent = 0;
        }
        if self.begin == self.came.len() {
            self.came.clear();
            self.begin = 0;
        }
    }

    /// Gives memory back that nothing is in.
    pub(super) fn release(&mut self) {
        if self.written.is_empty() {
            mem::take(&mut self.written);
        }
        if self.came.is_empty() {
            mem::take(&mut self.came);
        }
    }
}
