//! The timer of a worker: one timerfd(2), which is seldom set.
//!
//! A time limit given to epoll_wait(2) has the kernel start a timer each time the worker sleeps,
//! and cancel it each time the worker is woken: twice a lookup, and on a virtual machine each time
//! a way to the host and back. But nearly every lookup ends long before its deadline. So the timer
//! is left alone as long as deadlines are later than it rings. It rings in vain now and then, at
//! most once in the time that the shortest deadline is ahead, and is set again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// A timer that makes its descriptor readable when it rings.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    /// When it rings; `None`: it is not set.
    rings: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            timer: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            rings: None,
        })
    }

    /// Has it ring at `due` or before.
    pub(super) fn set(&mut self, now: Instant, due: Instant) -> io::Result<()> {
        if self.rings.is_some_and(|rings| rings <= due) {
            return Ok(());
        }
        // Zero would end the timer.
        let left = due.saturating_duration_since(now).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.rings = Some(due);
        Ok(())
    }

    /// It has rung, and is not set any more.
    pub(super) fn rang(&mut self) {
        self.rings = None;
        // Nothing is to be read if it was set anew in between.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// Whether it rings within this time.
    fn rings_within(alarm: &Alarm, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut [PollFd::new(alarm, PollFlags::IN)], Some(&limit)).unwrap() > 0
    }

    #[test]
    fn it_is_set_again_for_what_is_due_earlier_alone() {
        let mut alarm = Alarm::new().unwrap();
        let now = Instant::now();
        let hour = Duration::from_secs(3_600);
        alarm.set(now, now + hour).unwrap();
        alarm.set(now, now + 2 * hour).unwrap();
        assert_eq!(alarm.rings, Some(now + hour));
        alarm.set(now, now + Duration::from_millis(1)).unwrap();
        assert!(rings_within(&alarm, hour));
    }

    #[test]
    fn once_it_has_rung_it_rings_no_more_until_it_is_set() {
        let mut alarm = Alarm::new().unwrap();
        let now = Instant::now();
        // It is due already.
        alarm.set(now, now).unwrap();
        assert!(rings_within(&alarm, Duration::from_secs(60)));
        alarm.rang();
        assert!(!rings_within(&alarm, Duration::ZERO));
        alarm.set(now, now).unwrap();
        assert!(rings_within(&alarm, Duration::from_secs(60)));
    }
}
