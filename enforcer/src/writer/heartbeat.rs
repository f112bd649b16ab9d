//! The heartbeat: what tells the kernel, and other agents of this node, that an agent lives.
//!
//! The set [`ALIVE_SET`] holds the protocols whose lookups are intercepted, and for each agent a
//! *mark* of its own. Each agent renews all of these every [`BEAT`]. An agent that ends removes its
//! mark at once, and the protocols too, unless another agent beats. That another one has a mark
//! does not say so: a crashed agent leaves its mark to lapse. So the one that ends looks until it
//! knows ([`OtherMarks`]).
//!
//! The [`Heartbeat`] has a thread and a socket of its own: whatever a plan or an installation
//! takes, the kernel hears of us in time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clock::Time;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::layout::{ALIVE_PROTOCOLS, ALIVE_SET};
use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::set_key::SetKey;
use crate::netlink::socket::CommitError;

use super::kernel::{Kernel, NfTables};
use super::renewal::{Renewal, RenewalPass};

/// How often the heartbeat is renewed.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// How long the kernel believes us alive without a beat. In fail-mode open this is how long lookups
/// go unanswered after the agent died; shorter, and a busy moment would open the way past us.
const ALIVE: Duration = Duration::from_secs(4);

/// A mark that has no more than this left was not renewed twice in a row: its agent is dead. That
/// is known after at most `ALIVE - DYING`; our own last beat, a [`BEAT`] ago at most, lets lookups
/// come to us for as long.
const DYING: Duration = BEAT;

/// How often an agent that ends looks whether another one beats.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Keys of the heartbeat's set that stand for agents: numbers of protocols that nobody has, so that
/// they let nothing be intercepted.
const MARKS: RangeInclusive<u8> = 150..=252;

/// One of [`MARKS`] by chance, but none that another agent has.
pub(super) fn mark(taken: &[(u8, Duration)]) -> u8 {
    let chance = std::collections::hash_map::RandomState::new().hash_one(());
    let span = u64::from(MARKS.end() - MARKS.start()) + 1;
    // Below the span, which came from a u8.
    let nth = |step: u64| MARKS.start() + u8::try_from((chance % span + step) % span).unwrap_or(0);
    (0..span)
        .map(nth)
        .find(|mark| !taken.iter().any(|(other, _)| other == mark))
        .unwrap_or(*MARKS.start())
}

/// How many other agents have a mark.
pub(super) fn others(marks: &[(u8, Duration)], own: u8) -> usize {
    marks
        .iter()
        .filter(|(key, _)| MARKS.contains(key) && *key != own)
        .count()
}

/// What an agent that ends has seen of the marks of others.
#[derive(Debug, Default)]
pub(super) struct OtherMarks {
    /// When each would lapse, as seen first; `None` before the first look.
    ends: Option<BTreeMap<u8, Time>>,
}

/// Whether another agent beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerLiveness {
    /// One was seen to.
    Alive,
    /// None does.
    Dead,
    /// There are marks that are too young to tell.
    Unknown,
}

impl OtherMarks {
    /// Takes in the marks that are there at `now`, each with the time it has left.
    fn look(&mut self, marks: &[(u8, Duration)], now: Time) -> PeerLiveness {
        let ends: BTreeMap<u8, Time> = marks.iter().map(|(mark, left)| (*mark, now + *left)).collect();
        if let Some(first) = &self.ends {
            // A renewal moves the end by a beat or so; the rest is the clock's imprecision. A mark
            // that is new was made by a beat.
            let is_renewed = |(mark, end): (&u8, &Time)| first.get(mark).is_none_or(|before| *end > *before + BEAT / 2);
            if ends.iter().any(is_renewed) {
                return PeerLiveness::Alive;
            }
        } else {
            self.ends = Some(ends);
        }
        match marks.iter().all(|(_, left)| *left <= DYING) {
            true => PeerLiveness::Dead,
            false => PeerLiveness::Unknown,
        }
    }
}

/// Whether some agent renews its heartbeat in this table, in the network namespace of the calling
/// thread. Takes as long as it takes to tell a crashed one from a living one: three seconds at
/// most. Without a table nobody does.
pub fn agent_is_alive(table: &str) -> io::Result<bool> {
    let mut kernel = NfTables::open(table).map_err(io::Error::other)?;
    let mut others = OtherMarks::default();
    loop {
        // Before the look, as below.
        let now = clock::now();
        let mut marks = kernel.heartbeats().unwrap_or_default();
        marks.retain(|(key, _)| MARKS.contains(key));
        match others.look(&marks, now) {
            PeerLiveness::Alive => return Ok(true),
            PeerLiveness::Dead => return Ok(false),
            PeerLiveness::Unknown => std::thread::sleep(LOOK),
        }
    }
}

/// What beats, from the first installation on.
#[derive(Debug)]
pub(super) struct Heartbeat<K> {
    state: Mutex<HeartbeatState<K>>,
    /// How often it beat again after it had lapsed, so that lookups had gone past this agent.
    pub(super) gaps: AtomicU64,
    /// Wakes its thread: it begins, or is over.
    turned: Condvar,
    /// Which of the agents that overlap in an upgrade this is: a key of its own in the set of the
    /// heartbeat.
    mark: u8,
}

#[derive(Debug)]
struct HeartbeatState<K> {
    kernel: K,
    renewal: Renewal,
    mark: u8,
    /// When it beats next; not before the first installation, and not while the table is lost.
    next_beat: Option<Time>,
    /// When the kernel gives this agent up if it does not beat again; `None` before the first beat,
    /// and after a pause.
    alive_until: Option<Time>,
    /// Whether lookups go past an agent that was given up (fail-mode open).
    falls_through: bool,
    /// While it ends and it is not known yet whether another agent beats.
    leaving: Option<OtherMarks>,
    /// Nobody writes any more.
    is_over: bool,
}

/// The table, or the heartbeat's set, is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableMissing;

/// Ends a heart when it is dropped, also while a thread panics: without a writer there is no agent.
pub(super) struct StopOnDrop<'a, K>(pub(super) &'a Heartbeat<K>);

impl<K> Drop for StopOnDrop<'_, K> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.turned.notify_all();
    }
}

impl<K> Heartbeat<K> {
    /// A heart that does not beat yet.
    pub(super) fn new(kernel: K, renewal: Renewal, mark: u8) -> Self {
        Self {
            state: Mutex::new(HeartbeatState {
                kernel,
                renewal,
                mark,
                next_beat: None,
                alive_until: None,
                falls_through: false,
                leaving: None,
                is_over: false,
            }),
            gaps: AtomicU64::new(0),
            turned: Condvar::new(),
            mark,
        }
    }

    /// Which agent this is.
    pub(super) fn mark(&self) -> u8 {
        self.mark
    }

    /// The table is lost: there is nothing to beat into until rules are [installed](Self::begin)
    /// again.
    pub(super) fn pause(&self) {
        let mut state = self.state();
        state.next_beat = None;
        state.alive_until = None;
    }

    /// Held for as long as one small transaction takes.
    fn state(&self) -> MutexGuard<'_, HeartbeatState<K>> {
        self.state.lock()
    }
}

impl<K: Kernel> Heartbeat<K> {
    /// Beats at once, and goes on. `falls_through`: lookups go past an agent that the kernel has
    /// given up.
    pub(super) fn begin(&self, falls_through: bool) -> Result<(), TableMissing> {
        let mut state = self.state();
        let outcome = self.beat(&mut state);
        state.falls_through = falls_through;
        self.turned.notify_all();
        outcome
    }

    fn beat(&self, state: &mut HeartbeatState<K>) -> Result<(), TableMissing> {
        if let Some(unseen) = state.beat()? {
            self.gaps.fetch_add(1, Relaxed);
            tracing::warn!(
                seconds = unseen.as_secs_f32(),
                "the heartbeat had lapsed, and lookups went past this agent unobserved; now they are intercepted again"
            );
        }
        Ok(())
    }

    /// Ends interception in fail-mode open, unless another agent has taken over and goes on
    /// beating. `false`: that is not known yet; what stands still holds for [`LOOK`] and longer,
    /// and it is to be asked again.
    pub(super) fn stop(&self) -> bool {
        self.state().stop()
    }

    /// The marks of other agents that beat, or did a moment ago.
    pub(super) fn others(&self) -> BTreeSet<u8> {
        let mut state = self.state();
        let own = state.mark;
        // Without a table nobody beats.
        let marks = state.kernel.heartbeats().unwrap_or_default();
        let lifetimes = |(key, left): &(u8, Duration)| MARKS.contains(key) && *key != own && *left > DYING;
        marks.into_iter().filter(lifetimes).map(|(key, _)| key).collect()
    }

    /// Puts this agent's mark into the heartbeat before it serves: another one then knows whose
    /// doing it is when rules change.
    pub(super) fn show_mark(&self) {
        let mut state = self.state();
        let operations = heartbeat(&[state.mark], state.renewal.passes());
        if let Err(error) = state.kernel.commit(&operations) {
            tracing::debug!(?error, "there is no table yet to put a mark in");
        }
    }

    /// Does something while it does not beat, for which its kernel has to stand still.
    pub(super) fn between_beats<T>(&self, work: impl FnOnce(&K) -> T) -> T {
        work(&self.state().kernel)
    }

    /// Beats when it is time, until it is over. Tells when the table is gone.
    pub(super) fn run(&self, table_is_gone: impl Fn()) {
        let mut state = self.state();
        while !state.is_over {
            let Some(due) = state.next_beat else {
                self.turned.wait(&mut state);
                continue;
            };
            let pause = due.since(clock::now());
            if pause > Duration::ZERO {
                self.turned.wait_for(&mut state, pause);
            } else if self.beat(&mut state) == Err(TableMissing) {
                drop(state);
                table_is_gone();
                state = self.state();
            }
        }
    }
}

impl<K: Kernel> HeartbeatState<K> {
    /// For how long lookups have gone past this agent since the last beat, if they have: it was
    /// stopped, or not given time.
    fn beat(&mut self) -> Result<Option<Duration>, TableMissing> {
        let now = clock::now();
        self.next_beat = Some(now + BEAT);
        let [tcp, udp] = ALIVE_PROTOCOLS;
        let keys = [tcp, udp, self.mark];
        match self.kernel.commit(&heartbeat(&keys, self.renewal.passes())) {
            Ok(()) => {
                let lapsed = self.alive_until.replace(now + ALIVE).filter(|end| *end < now);
                Ok(lapsed.filter(|_| self.falls_through).map(|end| now.since(end)))
            }
            Err(CommitError::Refused(refusals)) if refusals.iter().any(|refusal| refusal.errno == libc::ENOENT) => {
                self.next_beat = None;
                self.alive_until = None;
                Err(TableMissing)
            }
            Err(error) => {
                tracing::warn!(?error, "the heartbeat was not renewed");
                Ok(None)
            }
        }
    }

    fn stop(&mut self) -> bool {
        if self.next_beat.take().is_some() {
            if let Err(error) = self
                .kernel
                .commit(&heartbeat(&[self.mark], &[RenewalPass::Add, RenewalPass::Delete]))
            {
                tracing::warn!(?error, "this agent's own mark was not removed");
            }
            self.leaving = Some(OtherMarks::default());
        }
        let Some(others) = &mut self.leaving else { return true };
        // Before the look: rather too early an end than a renewal that was none.
        let now = clock::now();
        let beating = match self.kernel.heartbeats() {
            Ok(mut marks) => {
                marks.retain(|(key, _)| MARKS.contains(key) && *key != self.mark);
                others.look(&marks, now)
            }
            Err(error) => {
                tracing::warn!(%error, "it cannot be told whether another agent serves on");
                PeerLiveness::Dead
            }
        };
        match beating {
            PeerLiveness::Unknown => return false,
            PeerLiveness::Alive => tracing::info!("another agent serves on; lookups stay intercepted"),
            PeerLiveness::Dead => {
                // Added first, because deleting what is not there would be an error.
                let removal = heartbeat(&ALIVE_PROTOCOLS, &[RenewalPass::Add, RenewalPass::Delete]);
                if let Err(error) = self.kernel.commit(&removal) {
                    tracing::warn!(?error, "the heartbeat was not removed; it ends within {ALIVE:?}");
                }
            }
        }
        self.leaving = None;
        true
    }
}

/// These steps for elements of the heartbeat.
fn heartbeat(keys: &[u8], passes: &[RenewalPass]) -> Vec<ElementOp> {
    let set: Arc<str> = ALIVE_SET.into();
    let mut operations = Vec::new();
    for pass in passes {
        operations.extend(keys.iter().map(|key| ElementOp {
            set: Arc::clone(&set),
            key: SetKey::from_slice(&[*key]),
            action: match pass {
                RenewalPass::Add => ElementAction::Add(ALIVE),
                RenewalPass::Delete => ElementAction::Delete,
            },
        }));
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_millis(100_000);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nobody_else_is_known_at_the_first_look() {
        assert_eq!(OtherMarks::default().look(&[], START), PeerLiveness::Dead);
        assert_eq!(
            OtherMarks::default().look(&[(200, millis(900))], START),
            PeerLiveness::Dead
        );
    }

    #[test]
    fn an_agent_that_beats_is_known_by_its_next_beat() {
        let mut others = OtherMarks::default();
        assert_eq!(others.look(&[(200, millis(3_100))], START), PeerLiveness::Unknown);
        assert_eq!(
            others.look(&[(200, millis(3_000))], START + millis(100)),
            PeerLiveness::Unknown
        );
        assert_eq!(
            others.look(&[(200, millis(3_990))], START + millis(150)),
            PeerLiveness::Alive
        );
    }

    #[test]
    fn an_agent_that_has_begun_meanwhile_beats() {
        let mut others = OtherMarks::default();
        assert_eq!(others.look(&[(200, millis(2_000))], START), PeerLiveness::Unknown);
        let marks = [(200, millis(1_900)), (201, millis(4_000))];
        assert_eq!(others.look(&marks, START + millis(100)), PeerLiveness::Alive);
    }

    #[test]
    fn an_agent_that_crashed_is_known_by_two_beats_that_are_missing() {
        let mut others = OtherMarks::default();
        let mut looks = 0;
        let mut passed = Duration::ZERO;
        while others.look(&[(200, millis(3_900) - passed)], START + passed) == PeerLiveness::Unknown {
            passed += LOOK;
            looks += 1;
            assert!(looks < 1_000);
        }
        assert_eq!(passed, millis(2_900));
        assert_eq!(others.look(&[], START + passed), PeerLiveness::Dead, "it lapsed");
    }
}
