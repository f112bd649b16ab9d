//! Pauses commits so that others can read large sets.
//!
//! The kernel begins a dump anew when a transaction came in between. So beside thousands of new
//! names a second, whoever dumps large sets (`nft list`, kube-proxy, monitoring) does not come to
//! an end for minutes. A writer that commits much therefore looks now and then whether somebody
//! reads, and pauses until that one is done; what comes meanwhile shares one transaction
//! afterwards. While nobody reads, nobody waits.
//!
//! Measured with nft 1.0.6 on a busy machine: to read 1,000 elements takes 25 ms, 6,000 take 150
//! ms, 20,000 take 450 ms.

use std::fs;
use std::time::Duration;

use clock::Time;

/// How often a busy writer looks for readers.
const LOOK: Duration = Duration::from_millis(100);

/// A writer is busy when it has committed so many transactions since it last looked. With fewer, a
/// reader comes to an end by itself.
const BUSY: u32 = 20;

/// A pause lasts so long after a reader was last seen: between two sets it is not visible.
const STEP: Duration = Duration::from_millis(30);

/// The longest pause: no admission waits longer for a reader than half of the usual deadline.
const LONGEST: Duration = Duration::from_millis(500);

/// After a pause the writer does not pause again for `WORK` times as long, whoever reads.
const WORK: u32 = 20;

/// Decides when commits pause.
#[derive(Debug, Default)]
pub(super) struct ReaderPause {
    /// Transactions since the last look.
    transactions: u32,
    next_check: Time,
    /// When the pause began.
    began: Time,
    /// The end of the pause.
    until: Time,
}

impl ReaderPause {
    /// Notes a transaction. Begins a pause if it is time to look for readers and there is one.
    pub(super) fn committed(&mut self, now: Time, is_read: impl FnOnce() -> bool) {
        self.transactions += 1;
        if now < self.next_check {
            return;
        }
        let is_busy = self.transactions >= BUSY;
        self.transactions = 0;
        self.next_check = now + LOOK;
        if is_busy && is_read() {
            self.began = now;
            self.until = now + STEP;
        }
    }

    /// How long the pause lasts from now on, as far as is known.
    pub(super) fn left(&self, now: Time) -> Duration {
        self.until.since(now)
    }

    /// Ends a pause, or prolongs it while there is a reader. Returns how much longer it is.
    pub(super) fn extend(&mut self, now: Time, is_read: impl FnOnce() -> bool) -> Duration {
        if now.since(self.began) < LONGEST && is_read() {
            self.until = now + STEP;
        } else {
            self.next_check = now + now.since(self.began) * WORK;
        }
        self.left(now)
    }
}

/// Whether somebody is dumping nfnetlink objects, in the network namespace of the calling thread.
pub(super) fn is_read() -> bool {
    fs::read_to_string("/proc/thread-self/net/netlink").is_ok_and(|sockets| has_reader(&sockets))
}

/// `NETLINK_NETFILTER`.
const NETFILTER: &str = "12";

/// Whether a socket has a dump under way (`netlink_seq_show` in the kernel's `af_netlink.c`).
fn has_reader(sockets: &str) -> bool {
    let mut lines = sockets.lines();
    let heading = lines.next().unwrap_or_default();
    let column = |name| heading.split_whitespace().position(|column| column == name);
    let (Some(protocol), Some(dump)) = (column("Eth"), column("Dump")) else {
        return false;
    };
    lines.any(|line| {
        let of_column = |place| line.split_whitespace().nth(place);
        of_column(protocol) == Some(NETFILTER) && of_column(dump).is_some_and(|dump| dump != "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_millis(100_000);

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How often a writer looks in ten seconds with a transaction each so many milliseconds.
    fn checks(every: u64) -> usize {
        let (mut reader_pause, mut checks) = (ReaderPause::default(), 0);
        for at in (0..10_000).step_by(every as usize) {
            reader_pause.committed(START + millis(at), || {
                checks += 1;
                false
            });
            assert_eq!(reader_pause.left(START + millis(at)), Duration::ZERO);
        }
        checks
    }

    #[test]
    fn who_commits_little_does_not_even_look() {
        assert_eq!(checks(10), 0);
        assert!((90..=100).contains(&checks(1)), "{}", checks(1));
    }

    #[test]
    fn a_rest_lasts_until_the_reader_is_done_and_is_followed_by_work() {
        let mut reader_pause = ReaderPause::default();
        for at in 0..=100 {
            reader_pause.committed(START + millis(at), || true);
        }
        let begun = START + millis(100);
        assert_eq!(reader_pause.left(begun), STEP);
        assert_eq!(reader_pause.extend(begun + millis(30), || true), STEP);
        assert_eq!(reader_pause.extend(begun + millis(60), || false), Duration::ZERO);
        for at in 60..60 + 60 * u64::from(WORK) {
            reader_pause.committed(begun + millis(at), || panic!("too soon"));
        }
        // And it does not last for ever.
        let (mut now, mut left) = (begun, STEP);
        reader_pause.began = begun;
        while left > Duration::ZERO {
            now = now + left;
            left = reader_pause.extend(now, || true);
        }
        assert!(now.since(begun) < LONGEST + STEP);
    }

    #[test]
    fn a_reader_is_a_netfilter_socket_with_a_dump_under_way() {
        let sockets = |protocol: u8, dump: u8| {
            format!(
                "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                 0000000000000000 0   1          00000551 0        0        1     2        0        3\n\
                 0000000000000000 {protocol}  77         00000000 0        0        {dump}     2        0        12345\n"
            )
        };
        assert!(has_reader(&sockets(12, 1)));
        assert!(!has_reader(&sockets(12, 0)) && !has_reader(&sockets(16, 1)));
        assert!(!has_reader("") && !has_reader("sk Eth\n1 12\n"));
    }
}
