//! Pauses commits so that others can read large sets.
//!
//! The kernel begins a dump anew when a transaction interrupts it. So beside thousands of new names
//! a second, a dump of large sets (`nft list`, kube-proxy, monitoring) takes minutes. A writer that
//! commits often therefore looks now and then for readers, and pauses while there is one.
//! Admissions that come meanwhile share one transaction afterwards. Without readers there are no
//! pauses.
//!
//! Measured with nft 1.0.6 on a busy machine: a dump of 1,000 elements takes 25 ms, of 6,000 150
//! ms, of 20,000 450 ms.

use std::fs;
use std::time::Duration;

use clock::Time;

/// How often a busy writer looks for readers.
const LOOK: Duration = Duration::from_millis(100);

/// The transactions since the last look that make a writer busy. With fewer, a dump ends by itself.
const BUSY: u32 = 20;

/// How long a pause lasts after a reader was last seen, because a reader is not visible between two
/// sets.
const STEP: Duration = Duration::from_millis(30);

/// The longest pause, which is half of the usual deadline of an admission.
const LONGEST: Duration = Duration::from_millis(500);

/// After a pause, the writer does not pause again for `WORK` times as long, so that readers slow it
/// by a twentieth at most.
const WORK: u32 = 20;

/// Decides when commits pause.
#[derive(Debug, Default)]
pub(super) struct ReaderPause {
    /// Transactions since the last look.
    transactions: u32,
    next_check: Time,
    /// The beginning of the last pause.
    began: Time,
    /// The end of the last pause.
    until: Time,
}

impl ReaderPause {
    /// Counts a transaction. When it is time to look for readers and there is one, begins a pause.
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

    /// How long the pause still lasts, if no reader prolongs it.
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

/// The number of `NETLINK_NETFILTER`, as `/proc/net/netlink` shows it.
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

    /// How often a writer looks for readers in ten seconds, with a transaction every `every`
    /// milliseconds.
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
    fn a_writer_that_commits_little_does_not_look_for_readers() {
        assert_eq!(checks(10), 0);
        assert!((90..=100).contains(&checks(1)), "{}", checks(1));
    }

    #[test]
    fn a_pause_lasts_until_the_reader_is_done_and_is_followed_by_work() {
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
