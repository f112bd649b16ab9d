//! The heartbeat: tells the kernel, and other agents of this node, that an agent is alive.
//!
//! The set [`ALIVE_SET`] holds the protocols whose lookups are intercepted, and for each agent a
//! *mark* of its own. Each agent renews all of these every [`BEAT`]. An agent that ends removes its
//! mark at once, and the protocols too unless another agent is alive. The mark of another agent
//! does not prove that, because a crashed agent leaves its mark to time out. So an agent that ends
//! observes the marks until it knows ([`OtherMarks`]).
//!
//! The [`Heartbeat`] has a thread and a socket of its own, so that no plan and no installation
//! delays it.

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

/// How long the kernel takes an agent for alive without a beat. In fail-mode open, lookups go
/// unanswered for so long after the agent died; if it were shorter, a busy moment would let lookups
/// pass us unobserved.
pub(super) const ALIVE: Duration = Duration::from_secs(4);

/// A mark with no more than this left was not renewed twice in a row, so its agent is dead. That is
/// known after at most `ALIVE - DYING`. Our own last beat was at most a [`BEAT`] ago, so lookups
/// come to us for as long.
const DYING: Duration = BEAT;

/// How often an agent that ends observes the marks of others.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Keys of the heartbeat's set that are marks of agents: protocol numbers that are not assigned, so
/// that they let nothing be intercepted.
const MARKS: RangeInclusive<u8> = 150..=252;

/// A random one of [`MARKS`] that no other agent has.
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

/// What an agent that ends has observed of the marks of others.
#[derive(Debug, Default)]
pub(super) struct OtherMarks {
    /// When each mark would time out, as first observed; `None` before the first look.
    ends: Option<BTreeMap<u8, Time>>,
}

/// Whether another agent is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerLiveness {
    /// One has renewed its mark.
    Alive,
    /// All marks are timing out.
    Dead,
    /// A mark is too young to tell.
    Unknown,
}

impl OtherMarks {
    /// Takes in the marks that are there at `now`, each with its remaining time.
    fn look(&mut self, marks: &[(u8, Duration)], now: Time) -> PeerLiveness {
        let ends: BTreeMap<u8, Time> = marks.iter().map(|(mark, left)| (*mark, now + *left)).collect();
        if let Some(first) = &self.ends {
            // A renewal moves the end by about a beat; a smaller difference is the clock's
            // imprecision. A mark that is new was made by a beat.
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

/// Whether some agent is alive that renews its heartbeat in this table, in the network namespace of
/// the calling thread. It takes up to three seconds to tell a living agent from a crashed one.
/// Without a table no agent is alive.
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

/// The heartbeat of this agent, which begins with the first installation.
#[derive(Debug)]
pub(super) struct Heartbeat<K> {
    state: Mutex<HeartbeatState<K>>,
    /// How often the heartbeat had timed out before it was renewed, so that lookups had passed this
    /// agent.
    pub(super) gaps: AtomicU64,
    /// Wakes the thread when the heartbeat begins or ends.
    wake: Condvar,
    /// The mark of this agent.
    mark: u8,
}

#[derive(Debug)]
struct HeartbeatState<K> {
    kernel: K,
    renewal: Renewal,
    mark: u8,
    /// When the next beat is due; `None` before the first installation, and while the table is
    /// lost.
    next_beat: Option<Time>,
    /// When the kernel takes this agent for dead if it does not beat again; `None` before the first
    /// beat, and after a pause.
    alive_until: Option<Time>,
    /// Whether lookups pass an agent that is taken for dead (fail-mode open).
    falls_through: bool,
    /// Set while this agent ends and does not know yet whether another one is alive.
    leaving: Option<OtherMarks>,
    /// The writer has ended.
    is_over: bool,
}

/// The table, or the heartbeat's set, does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableMissing;

/// Ends the heartbeat when it is dropped, also while a thread panics: without a writer the agent is
/// not alive.
pub(super) struct StopOnDrop<'a, K>(pub(super) &'a Heartbeat<K>);

impl<K> Drop for StopOnDrop<'_, K> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.wake.notify_all();
    }
}

impl<K> Heartbeat<K> {
    /// A heartbeat that has not begun.
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
            wake: Condvar::new(),
            mark,
        }
    }

    /// The mark of this agent.
    pub(super) fn mark(&self) -> u8 {
        self.mark
    }

    /// Pauses until rules are [installed](Self::begin) again, because the table is lost.
    pub(super) fn pause(&self) {
        let mut state = self.state();
        state.next_beat = None;
        state.alive_until = None;
    }

    /// The lock is held for as long as one small transaction takes.
    fn state(&self) -> MutexGuard<'_, HeartbeatState<K>> {
        self.state.lock()
    }
}

impl<K: Kernel> Heartbeat<K> {
    /// Beats at once, and goes on. `falls_through`: lookups pass an agent that the kernel takes for
    /// dead.
    pub(super) fn begin(&self, falls_through: bool) -> Result<(), TableMissing> {
        let mut state = self.state();
        let outcome = self.beat(&mut state);
        state.falls_through = falls_through;
        self.wake.notify_all();
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

    /// Ends interception in fail-mode open, unless another agent has taken over and is alive.
    /// `false`: that is not known yet, and this is to be called again; the heartbeat holds for
    /// longer than [`LOOK`].
    pub(super) fn stop(&self) -> bool {
        self.state().stop()
    }

    /// The marks of other agents that are alive or were a moment ago.
    pub(super) fn others(&self) -> BTreeSet<u8> {
        let mut state = self.state();
        let own = state.mark;
        // Without a table no agent is alive.
        let marks = state.kernel.heartbeats().unwrap_or_default();
        let is_alive = |(key, left): &(u8, Duration)| MARKS.contains(key) && *key != own && *left > DYING;
        marks.into_iter().filter(is_alive).map(|(key, _)| key).collect()
    }

    /// Puts this agent's mark into the heartbeat's set before the agent serves, so that another
    /// agent can tell who changes the rules.
    pub(super) fn show_mark(&self) {
        let mut state = self.state();
        let operations = heartbeat(&[state.mark], state.renewal.passes());
        if let Err(error) = state.kernel.commit(&operations) {
            tracing::debug!(?error, "there is no table yet to put a mark in");
        }
    }

    /// Runs `work` on the heartbeat's kernel while no beat changes it.
    pub(super) fn between_beats<T>(&self, work: impl FnOnce(&K) -> T) -> T {
        work(&self.state().kernel)
    }

    /// Beats when a beat is due, until the heartbeat ends. Calls `table_is_gone` when the table
    /// does not exist.
    pub(super) fn run(&self, table_is_gone: impl Fn()) {
        let mut state = self.state();
        while !state.is_over {
            let Some(due) = state.next_beat else {
                self.wake.wait(&mut state);
                continue;
            };
            let pause = due.since(clock::now());
            if pause > Duration::ZERO {
                self.wake.wait_for(&mut state, pause);
            } else if self.beat(&mut state) == Err(TableMissing) {
                drop(state);
                table_is_gone();
                state = self.state();
            }
        }
    }
}

impl<K: Kernel> HeartbeatState<K> {
    /// Renews the heartbeat. Returns for how long lookups passed this agent before, if they did: it
    /// was stopped, or got no processor time.
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
            Err(CommitError::Refused(errors)) if errors.iter().any(|error| error.errno == libc::ENOENT) => {
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
        // Before the marks are read: an end that is too early is no false renewal.
        let now = clock::now();
        let liveness = match self.kernel.heartbeats() {
            Ok(mut marks) => {
                marks.retain(|(key, _)| MARKS.contains(key) && *key != self.mark);
                others.look(&marks, now)
            }
            Err(error) => {
                tracing::warn!(%error, "it cannot be told whether another agent serves on");
                PeerLiveness::Dead
            }
        };
        match liveness {
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

/// The operations of these passes for elements of the heartbeat's set.
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
