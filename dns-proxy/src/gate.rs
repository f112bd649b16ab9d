//! The border between the proxy and the rest of the agent: [`Gate`], which the agent implements.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::answer::ValidatedAnswer;
use crate::completion::{AdmissionError, Completion};
use crate::denial::Denial;
use crate::event::ProxyEvent;
use crate::question::{DnsQuestion, QueryTarget};

/// The gate's decision on a question.
#[derive(Debug)]
pub enum Screening<I> {
    /// The question is forwarded; its answer goes through [`Gate::admit`] with this identity.
    Forward {
        /// Who asks, as the gate identified it.
        identity: I,
        /// The upstreams in order of preference; never empty.
        upstreams: Arc<[SocketAddr]>,
    },
    /// The question is refused.
    Refuse(Denial),
}

/// When the elements of an admission are to go to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// At once, on the caller's thread if that is possible: the worker has no other lookup in
    /// flight, so there is nothing to collect.
    Immediate,
    /// At the next [`Gate::flush`], in one transaction with those of other lookups.
    Batched,
}

/// How far an admission has come.
#[derive(Debug)]
pub enum AdmissionStatus<P> {
    /// It is decided.
    Settled(Result<P, AdmissionError>),
    /// The kernel has to be told first. The [`Completion`] delivers the result within this time;
    /// after it, the proxy withholds the answer.
    Pending(Duration),
}

/// What the proxy asks the rest of the agent. Many threads call an implementation for every
/// packet, so its methods must be cheap and must not block.
///
/// Each worker thread has a [`WorkerState`](Self::WorkerState) of its own, so that what a lookup
/// needs there takes no lock.
pub trait Gate: Send + Sync + 'static {
    /// The client as the gate knows it, carried from [`screen`](Self::screen) to
    /// [`admit`](Self::admit).
    type Identity: Send + Sync + 'static;
    /// Evidence that the kernel holds what an answer needs. Only the enforcer can make one, so no
    /// code path of the proxy can release an answer that was not committed.
    type Proof: Send + 'static;
    /// What a worker keeps between calls: snapshots, counters, admissions that are collected.
    type WorkerState: Send + 'static;

    /// Makes the state of a new worker.
    fn worker_state(&self) -> Self::WorkerState;

    /// Identifies the client and decides: may `source` ask this question, and which upstreams are
    /// to answer it? Does no I/O.
    fn screen(
        &self,
        worker_state: &mut Self::WorkerState,
        source: IpAddr,
        target: QueryTarget,
        question: &DnsQuestion,
    ) -> Screening<Self::Identity>;

    /// Learns and commits: the admission is settled when the kernel holds every element that the
    /// answer opens for anybody.
    ///
    /// An answer without addresses is settled at once, and so may be an
    /// [immediate](CommitMode::Immediate) one. For everything else the gate takes a completion,
    /// which any thread may settle later, but not before the next [`flush`](Self::flush).
    fn admit(
        &self,
        worker_state: &mut Self::WorkerState,
        identity: &Self::Identity,
        answer: ValidatedAnswer,
        mode: CommitMode,
        completion: impl FnOnce() -> Completion<Self::Proof>,
    ) -> AdmissionStatus<Self::Proof>;

    /// Submits the admissions that were collected: the worker has come to the end of a batch.
    fn flush(&self, worker_state: &mut Self::WorkerState);

    /// Does what no client waits for: the replies of a batch are sent.
    fn replied(&self, _worker_state: &mut Self::WorkerState) {}

    /// Counts what happened.
    fn observe(&self, worker_state: &mut Self::WorkerState, event: ProxyEvent<'_>);
}
