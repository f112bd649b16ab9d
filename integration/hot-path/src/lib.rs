//! Bench cases for the parts of the hot path that need no socket and no kernel:
//! for the micro-benchmarks (`./bench micro`) and for counting instructions (`./bench
//! instructions`).
// A part that cannot be prepared is a mistake here, and ends the benchmark.
#![allow(clippy::unwrap_used)]

mod batch;
mod learning;
mod lookup;
mod matching;
mod program;
mod recording;

pub use lookup::packets;

/// One part of the hot path, to be timed or counted.
pub struct BenchCase {
    /// What it is called.
    pub name: &'static str,
    prepare: fn() -> BenchIteration,
}

/// One pass through a part. What it returns follows from all that it does, so that none of it can
/// be left out.
pub type BenchIteration = Box<dyn FnMut() -> usize>;

/// All parts, in the order in which reports list them.
pub const BENCH_CASES: [BenchCase; 17] = [
    // A lookup from the packet to the packets that leave, as `dns_proxy` has it.
    BenchCase::new("lookup-forwarded", lookup::forwarded),
    BenchCase::new("lookup-cached", lookup::cached),
    BenchCase::new("lookup-denied", lookup::denied),
    // What events add to lookups: to a hundred that nobody watches, to one too many of its pod, to
    // one that is refused and recorded.
    BenchCase::new("event-unwatched-100", recording::unwatched),
    BenchCase::new("event-left-out", recording::left_out),
    BenchCase::new("event-refused", recording::refused),
    // A name against so many selectors.
    BenchCase::new("match-10", matching::against::<10>),
    BenchCase::new("match-10000", matching::against::<10_000>),
    // An answer into a ledger of 10,000 names.
    BenchCase::new("learn-again", learning::again),
    BenchCase::new("learn-new", learning::new),
    // So many elements as one transaction.
    BenchCase::new("encode-1", batch::of::<1>),
    BenchCase::new("encode-10", batch::of::<10>),
    BenchCase::new("encode-100", batch::of::<100>),
    // Policies that select one endpoint into its program, and that into what the kernel can
    // evaluate.
    BenchCase::new("compile-1", program::compiled::<1>),
    BenchCase::new("compile-20", program::compiled::<20>),
    BenchCase::new("fold-1", program::folded::<1>),
    BenchCase::new("fold-20", program::folded::<20>),
];

impl BenchCase {
    const fn new(name: &'static str, prepare: fn() -> BenchIteration) -> Self {
        Self { name, prepare }
    }

    /// The part of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        const { &BENCH_CASES }.iter().find(|part| part.name == name)
    }

    /// Makes what it needs.
    pub fn prepare(&self) -> BenchIteration {
        (self.prepare)()
    }
}
