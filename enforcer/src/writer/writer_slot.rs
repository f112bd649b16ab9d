//! The slot that the writer is in while nobody writes.
//!
//! Waking a thread takes several times as long as a small transaction. So a caller with little to
//! write does not ask the writer's thread while nobody writes: it takes the writer out of the slot,
//! commits, and puts it back. The writer is moved and never shared, so nobody holds a lock while
//! the kernel works, and there is one writer at a time.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use clock::Time;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::reader_pause::{self, ReaderPause};

/// A direct commit by a caller that takes longer than this is slow. The kernel is slow while
/// somebody else changes many rules in the same network namespace.
const LONG: Duration = Duration::from_millis(2);

/// After a direct commit slower than [`LONG`], callers leave the writing to the thread for `PAUSES`
/// times as long as it took, so that direct commits block a worker for at most a tenth of its time.
const PAUSES: u32 = 10;

/// Holds the writer while nobody writes.
#[derive(Debug)]
pub(super) struct WriterSlot<W> {
    state: Mutex<SlotState<W>>,
    back: Condvar,
}

#[derive(Debug)]
struct SlotState<W> {
    writer: Option<Box<W>>,
    /// The thread waits for the writer, and comes before all callers.
    is_awaited: bool,
    /// Callers leave the writing to the thread until then.
    reserved: Time,
    /// Pauses commits for readers of the kernel's sets.
    reader_pause: ReaderPause,
}

/// Exclusive use of the writer, which goes back into its slot when this is dropped.
#[derive(Debug)]
pub(super) struct WriterLease<'a, W> {
    /// `None` after [`give_up`](Self::give_up).
    writer: Option<Box<W>>,
    writer_slot: &'a WriterSlot<W>,
}

impl<W> WriterSlot<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            state: Mutex::new(SlotState {
                writer: Some(Box::new(writer)),
                is_awaited: false,
                reserved: Time::default(),
                reader_pause: ReaderPause::default(),
            }),
            back: Condvar::new(),
        }
    }

    /// For callers: takes the writer if nobody has it or waits for it.
    pub(super) fn try_take(&self, now: Time) -> Option<WriterLease<'_, W>> {
        let mut state = self.state();
        if state.is_awaited || now < state.reserved || state.reader_pause.left(now) > Duration::ZERO {
            return None;
        }
        let writer = state.writer.take()?;
        Some(self.hand_out(writer))
    }

    /// For the thread: waits for the writer. Never call this after it was [given
    /// up](WriterLease::give_up).
    pub(super) fn take(&self) -> WriterLease<'_, W> {
        let mut state = self.state();
        state.is_awaited = true;
        loop {
            if let Some(writer) = state.writer.take() {
                state.is_awaited = false;
                return self.hand_out(writer);
            }
            self.back.wait(&mut state);
        }
    }

    /// Notes how long a caller had the writer.
    pub(super) fn took(&self, from: Time, to: Time) {
        let took = to.since(from);
        let mut state = self.state();
        if took > LONG {
            state.reserved = to + took * PAUSES;
        }
        state.reader_pause.committed(to, reader_pause::is_read);
    }

    /// Notes that the thread has committed.
    pub(super) fn committed(&self, now: Time) {
        self.state().reader_pause.committed(now, reader_pause::is_read);
    }

    /// How long commits are paused from now on.
    pub(super) fn pause_left(&self, now: Time) -> Duration {
        self.state().reader_pause.left(now)
    }

    /// For the thread, when a pause is over: how much longer it is.
    pub(super) fn extend_pause(&self, now: Time) -> Duration {
        self.state().reader_pause.extend(now, reader_pause::is_read)
    }

    fn hand_out(&self, writer: Box<W>) -> WriterLease<'_, W> {
        WriterLease {
            writer: Some(writer),
            writer_slot: self,
        }
    }

    fn state(&self) -> MutexGuard<'_, SlotState<W>> {
        self.state.lock()
    }
}

impl<W> WriterLease<'_, W> {
    /// Keeps the writer out of the slot for good.
    pub(super) fn give_up(mut self) {
        self.writer = None;
    }
}

impl<W> Deref for WriterLease<'_, W> {
    type Target = W;

    fn deref(&self) -> &W {
        // Only `give_up` and `drop` take it, and both end this value.
        self.writer.as_deref().expect("held until it is given back")
    }
}

impl<W> DerefMut for WriterLease<'_, W> {
    fn deref_mut(&mut self) -> &mut W {
        // As above.
        self.writer.as_deref_mut().expect("held until it is given back")
    }
}

impl<W> Drop for WriterLease<'_, W> {
    /// Also runs when the holder panics, so that lookups go on.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let mut state = self.writer_slot.state();
            state.writer = Some(writer);
            let is_awaited = state.is_awaited;
            drop(state);
            // Only the thread ever waits, and it says so.
            if is_awaited {
                self.writer_slot.back.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    #[test]
    fn one_has_it_at_a_time() {
        let writer_slot = WriterSlot::new(());
        let held = writer_slot.try_take(NOW).unwrap();
        assert!(writer_slot.try_take(NOW).is_none());
        drop(held);
        assert!(writer_slot.try_take(NOW).is_some());
    }

    #[test]
    fn the_thread_gets_it_when_a_caller_is_done_or_has_failed() {
        let writer_slot = WriterSlot::new(0);
        thread::scope(|scope| {
            let mut held = writer_slot.try_take(NOW).unwrap();
            let thread = scope.spawn(|| *writer_slot.take());
            let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                *held = 1;
                std::panic::resume_unwind(Box::new("a failure"));
            }));
            assert!(failure.is_err());
            assert_eq!(thread.join().unwrap(), 1);
        });
    }

    #[test]
    fn callers_do_not_take_what_the_thread_waits_for() {
        let writer_slot = WriterSlot::new(());
        thread::scope(|scope| {
            let held = writer_slot.try_take(NOW).unwrap();
            let (done, wait) = std::sync::mpsc::channel();
            let writer_slot = &writer_slot;
            scope.spawn(move || {
                let held = writer_slot.take();
                wait.recv().unwrap();
                drop(held);
            });
            while !writer_slot.state().is_awaited {
                thread::yield_now();
            }
            drop(held);
            assert!(writer_slot.try_take(NOW).is_none());
            done.send(()).unwrap();
        });
        assert!(writer_slot.try_take(NOW).is_some());
    }

    #[test]
    fn after_a_long_wait_callers_leave_it_to_the_thread_for_a_while() {
        let writer_slot = WriterSlot::new(());
        writer_slot.took(NOW, NOW + LONG);
        assert!(writer_slot.try_take(NOW + LONG).is_some());
        let took = LONG + Duration::from_millis(1);
        let end = NOW + took;
        writer_slot.took(NOW, end);
        assert!(writer_slot.try_take(end).is_none());
        drop(writer_slot.take());
        assert!(writer_slot.try_take(end + took * PAUSES).is_some());
    }

    #[test]
    fn what_was_given_up_is_not_there_any_more() {
        let writer_slot = WriterSlot::new(());
        writer_slot.take().give_up();
        assert!(writer_slot.try_take(NOW).is_none());
    }
}
