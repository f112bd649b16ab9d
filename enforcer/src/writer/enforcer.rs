//! The handle to the writer.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clock::Time;
use policy::{Direction, PerDirection};
use tokio::sync::{oneshot, watch};

use crate::audit::Integrity;
use crate::conntrack::{self, ConntrackEntry};
use crate::desired::DesiredState;
use crate::layout::{Element, IpFamily};
use crate::records::RecordedVerdict;
use crate::ruleset::cut_chains::CutEnds;
use crate::ruleset::refusal;

use super::admission_request::{self, AdmissionRequest};
use super::commit;
use super::commit_token::CommitToken;
use super::cut_flows::CutFlows;
use super::cuts::{self, CutRequest};
use super::error::{AdmitError, InstallError};
use super::generation::Generation;
use super::heartbeat::{self, Heartbeat};
use super::install::InstallRequest;
use super::kernel::{Kernel, NfTables};
use super::kernel_writer::{KernelWriter, Sweeps};
use super::ledger_leases::LeaseScope;
use super::pending_admission::PendingAdmission;
use super::proof::Committed;
use super::renewal::Renewal;
use super::set_mirror::{AdmissionPhase, Holder, SetMirror};
use super::shared::WriterShared;
use super::stats::WriterStats;
use super::table_guard::TableGuard;
use super::thread::{self, WriterRequest};
use super::writer_slot::WriterSlot;

/// A handle to the writer. It is cheap to clone and usable from any thread.
///
/// When the last handle is dropped the writer ends and leaves the kernel as it is: enforcement
/// stays, and the heartbeat lapses.
#[derive(Clone)]
pub struct Enforcer {
    table: Arc<str>,
    shared: Arc<WriterShared>,
    writer_slot: Arc<WriterSlot<KernelWriter<NfTables>>>,
    heartbeat: Arc<Heartbeat<NfTables>>,
    queue: mpsc::Sender<WriterRequest>,
}

/// The most elements that a caller commits itself: they take some tenths of a millisecond, in which
/// the caller's other lookups wait. Handing them to the thread costs a context switch, and brings
/// each of them into another processor's cache.
const BY_CALLER: usize = 512;

impl Enforcer {
    /// Starts the writer thread in the network namespace of the calling thread, and adopts the
    /// elements of a table of this name: they count as committed.
    pub fn start(table: &str) -> Result<Self, InstallError> {
        let mut kernel = NfTables::open(table)?;
        let renewal = kernel.probe_renewal()?;
        Self::begin(kernel, renewal, None)
    }

    /// As [`start`](Self::start), and keeps what is installed: what others change in the table, or
    /// in the addresses and routes that interception needs, is repaired within some tenths of a
    /// second and reported ([`integrity`](Self::integrity)).
    pub fn start_guarded(table: &str) -> Result<Self, InstallError> {
        let mut kernel = NfTables::open(table)?;
        let renewal = kernel.probe_renewal()?;
        Self::begin(kernel, renewal, Some(Box::default()))
    }

    /// As [`start`](Self::start), without probing how this kernel renews elements.
    pub fn start_with(table: &str, renewal: Renewal) -> Result<Self, InstallError> {
        Self::begin(NfTables::open(table)?, renewal, None)
    }

    fn begin(mut kernel: NfTables, renewal: Renewal, guard: Option<Box<TableGuard>>) -> Result<Self, InstallError> {
        let table = kernel.table().to_owned();
        let shared = Arc::new(WriterShared::default());
        commit::read(&mut kernel)?.note(&mut shared.mirror(), &SetMirror::default());
        // Without a table nobody beats.
        let mark = heartbeat::mark(&kernel.heartbeats().unwrap_or_default());
        let is_guarded = guard.is_some();
        let heartbeat = Arc::new(Heartbeat::new(NfTables::open(&table)?, renewal, mark));
        let writer = KernelWriter {
            kernel,
            shared: Arc::clone(&shared),
            renewal,
            installed: None,
            interception: None,
            heartbeat: Arc::clone(&heartbeat),
            sweeps: Sweeps::default(),
            cuts: CutFlows::default(),
            guard,
        };
        let writer_slot = Arc::new(WriterSlot::new(writer));
        let (queue, inbox) = mpsc::channel();
        let (beating, to_heart) = (Arc::clone(&heartbeat), Arc::clone(&shared));
        let ended_by_writer = Arc::clone(&heartbeat);
        let to_thread = Arc::clone(&writer_slot);
        std::thread::Builder::new()
            .name("nft-writer".to_owned())
            .spawn(move || thread::run(&to_thread, &inbox, &ended_by_writer))
            .map_err(InstallError::Netlink)?;
        // Started second: without a writer thread nothing would end it.
        std::thread::Builder::new()
            .name("nft-heartbeat".to_owned())
            .spawn(move || {
                beating.run(|| {
                    to_heart.is_table_gone.store(true, Relaxed);
                    // The guard notices that too, and needs the mirror to put everything back.
                    if !is_guarded {
                        to_heart.table_is_lost();
                    }
                });
            })
            .map_err(InstallError::Netlink)?;
        Ok(Self {
            table: table.into(),
            shared,
            writer_slot,
            heartbeat,
            queue,
        })
    }

    /// Makes the kernel what `desired` says, and returns the new generation. Each packet is judged
    /// by the rules before or by the desired ones. Objects that stay are not touched, so that
    /// another endpoint or program costs only what it adds. When `desired` is what was installed
    /// last and the table is intact, nothing is done and the generation stays.
    ///
    /// `learned` returns every element that should be in force, with the end of its lease. It is
    /// called on the writer's thread, when no more elements are admitted under the generation
    /// before. It is not called when only endpoints come, go and move between programs that stand.
    ///
    /// On an error the rules before stay in force, with their generation.
    pub async fn install(
        &self,
        desired: impl Into<Arc<DesiredState>>,
        learned: impl FnOnce() -> Vec<(Element, Time)> + Send + 'static,
    ) -> Result<Generation, InstallError> {
        let of_nobody = |(element, end)| (element, end, Holder::default());
        let (mut learned, mut told) = (Some(learned), Vec::new());
        let tell = move |_: &LeaseScope| {
            if let Some(learned) = learned.take() {
                told = learned().into_iter().map(of_nobody).collect();
            }
            told.clone()
        };
        self.install_held(desired, tell).await
    }

    /// As [`install`](Self::install), with the holder of each element. `learned` may be called
    /// twice, and need only return what it is asked for.
    pub async fn install_held(
        &self,
        desired: impl Into<Arc<DesiredState>>,
        learned: impl FnMut(&LeaseScope) -> Vec<(Element, Time, Holder)> + Send + 'static,
    ) -> Result<Generation, InstallError> {
        let (answer, outcome) = oneshot::channel();
        let installation = InstallRequest {
            desired: desired.into(),
            learned: Box::new(learned),
            answer,
        };
        self.ask(WriterRequest::Install(Box::new(installation)))
            .map_err(|WriterStopped| InstallError::Stopped)?;
        outcome.await.unwrap_or(Err(InstallError::Stopped))
    }

    /// The generation of the rules in force; 0 before the first installation.
    pub fn generation(&self) -> Generation {
        self.shared.mirror().generation
    }

    /// The fast path of an admission: returns proof when every element is in the kernel until its
    /// time, less `slack`. `None` when something must be written or the generation has changed;
    /// then use [`admit`](Self::admit).
    pub fn already_admitted(
        &self,
        generation: Generation,
        elements: &[(Element, Time)],
        slack: Duration,
    ) -> Option<Committed> {
        let now = clock::now();
        let mirror = self.shared.mirror();
        let current = mirror.phase == AdmissionPhase::Serving && mirror.generation == generation;
        let held = |(element, until): &(Element, Time)| mirror.holds(element, now, *until, slack);
        (current && elements.iter().all(held)).then(Committed::acknowledged)
    }

    /// A token for elements that are all in the kernel. [`still_committed`](Self::still_committed)
    /// takes it in place of the elements, and need not look at each. `None` where
    /// [`already_admitted`](Self::already_admitted) would give no proof without slack.
    pub fn commit_token(&self, generation: Generation, elements: &[(Element, Time)]) -> Option<CommitToken> {
        let now = clock::now();
        let mirror = self.shared.mirror();
        if mirror.phase != AdmissionPhase::Serving || mirror.generation != generation {
            return None;
        }
        let ends = elements
            .iter()
            .map(|(element, _)| mirror.lifetime(element).map(|lifetime| lifetime.end));
        let until = ends.min()??;
        // Read under the mirror's lock, so that no loss comes between.
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        (until > now).then_some(CommitToken { epoch, until })
    }

    /// Returns proof when nothing was lost since the token was made, and its elements are in the
    /// kernel until `until`, less `slack`. Takes no lock.
    pub fn still_committed(
        &self,
        commit_token: CommitToken,
        now: Time,
        until: Time,
        slack: Duration,
    ) -> Option<Committed> {
        let stands = commit_token.until > now && commit_token.until + slack >= until;
        let current = self.shared.epoch.load(Ordering::Acquire) == commit_token.epoch;
        (stands && current).then(Committed::acknowledged)
    }

    /// Proof for an answer that opens nothing: no elements need no transaction, and no rules make
    /// them stale.
    pub fn admit_nothing(&self) -> Committed {
        Committed::acknowledged()
    }

    /// Puts elements into the kernel, each until its time, and waits for the acknowledgement until
    /// the deadline. An element that already lives longer is left alone.
    ///
    /// An element lives at least a second from its transaction on. More than 4,096 elements are
    /// committed in several transactions; then an error is that of the first transaction that
    /// failed, and the others may stand.
    pub async fn admit(
        &self,
        generation: Generation,
        elements: Vec<(Element, Time)>,
        deadline: Duration,
    ) -> Result<Committed, AdmitError> {
        self.admit_for(Holder::default(), generation, elements, deadline).await
    }

    /// As [`admit`](Self::admit), with the holder of the elements.
    pub async fn admit_for(
        &self,
        holder: Holder,
        generation: Generation,
        elements: Vec<(Element, Time)>,
        deadline: Duration,
    ) -> Result<Committed, AdmitError> {
        let (answer, outcome) = oneshot::channel();
        self.submit([AdmissionRequest {
            generation,
            elements,
            holder,
            deadline,
            answer: Box::new(answer),
        }]);
        match tokio::time::timeout(deadline, outcome).await {
            Ok(outcome) => outcome.unwrap_or(Err(AdmitError::Stopped)),
            Err(_) => Err(AdmitError::Unknown(deadline)),
        }
    }

    /// As [`admit`](Self::admit), committed by the caller itself before this returns. `None` when
    /// somebody else writes at this moment or the commit fails for any reason;
    /// [`submit`](Self::submit) waits, and finds out why. Sorts the elements.
    pub fn admit_now(
        &self,
        generation: Generation,
        elements: &mut Vec<(Element, Time)>,
        holder: Holder,
    ) -> Option<Committed> {
        admission_request::put_in_order(elements);
        let commit = |writer: &mut KernelWriter<NfTables>, elements: &[_]| {
            writer.commit_one(generation, elements, holder, clock::now())
        };
        self.by_caller(elements.len(), elements.as_slice(), commit).ok()?
    }

    /// As [`admit`](Self::admit) for many answers at once, without waiting. Each callback is called
    /// by the writer's thread, or, if the elements are few and nobody else writes, before this
    /// returns.
    pub fn submit(&self, submissions: impl IntoIterator<Item = AdmissionRequest>) {
        let admissions = submissions.into_iter().flat_map(AdmissionRequest::into_admissions);
        let admissions: Vec<PendingAdmission> = admissions.collect();
        let elements: usize = admissions.iter().map(|admission| admission.elements.len()).sum();
        let Err(admissions) = self.by_caller(elements, admissions, KernelWriter::commit_group) else {
            return;
        };
        if let Err(WriterRequest::Admit(refused)) = self.send(WriterRequest::Admit(admissions)) {
            for admission in refused {
                admission.settle(Err(AdmitError::Stopped));
            }
        }
    }

    /// Cuts flows: from now on no packet of theirs passes either way, for as long as connection
    /// tracking would have kept them, and both ends of a connection are told with their next
    /// packet. Then forgets their entries. Returns how many were forgotten; one that has ended
    /// meanwhile is none. Blocks for some milliseconds.
    pub fn cut(&self, flows: &[ConntrackEntry]) -> Result<usize, InstallError> {
        if flows.is_empty() {
            return Ok(0);
        }
        self.write_cuts(flows.iter().filter_map(cuts::of_entry).collect(), Vec::new())?;
        conntrack::delete_entries(flows).map_err(InstallError::Netlink)
    }

    /// Ends the cut of flows that are allowed again: whoever begins them anew with the same ports
    /// is judged by the rules. Blocks for some milliseconds.
    pub fn end_cut(&self, flows: &[ConntrackEntry]) -> Result<(), InstallError> {
        let ends = flows.iter().filter_map(cuts::of_entry).map(|(ends, _)| ends);
        self.write_cuts(Vec::new(), ends.collect())
    }

    fn write_cuts(&self, cuts: Vec<(CutEnds, Duration)>, restored: Vec<CutEnds>) -> Result<(), InstallError> {
        let (answer, outcome) = mpsc::sync_channel(1);
        let request = CutRequest { cuts, restored, answer };
        self.ask(WriterRequest::Cut(request))
            .map_err(|WriterStopped| InstallError::Stopped)?;
        outcome.recv().unwrap_or(Err(InstallError::Stopped))
    }

    /// Resolves when somebody else has removed the table or a set of it, once for each loss; then
    /// [`install`](Self::install) again. A loss is noticed with the next heartbeat or admission.
    /// Only one task may wait for it.
    pub async fn table_lost(&self) {
        self.shared.table_lost.notified().await;
    }

    /// What is damaged of what was installed, and what was repaired so far. Never changes unless
    /// the enforcer is [guarded](Self::start_guarded).
    pub fn integrity(&self) -> watch::Receiver<Integrity> {
        self.shared.integrity.subscribe()
    }

    /// The writer's counters and gauges.
    pub fn stats(&self) -> WriterStats {
        let counters = &self.shared.counters;
        let (elements, capacity) = self.shared.mirror().size();
        WriterStats {
            transactions: counters.transactions.load(Relaxed),
            failures: counters.failures.load(Relaxed),
            elements_written: counters.elements_written.load(Relaxed),
            elements,
            capacity,
            evictions: counters.evictions.load(Relaxed),
            installs: counters.installs.load(Relaxed),
            gaps: self.heartbeat.gaps.load(Relaxed),
        }
    }

    /// Elements that the kernel should hold, with the ends of their leases; sorted.
    pub fn elements(&self) -> Vec<(Element, Time)> {
        self.shared.mirror().live(clock::now())
    }

    /// Packets that our table has refused in each direction, IPv4 and IPv6, from its counters in
    /// the network namespace of the calling thread. This asks the kernel, so it is for a scrape and
    /// not for a hot path. `None` when the counters cannot be read, for example before the first
    /// installation.
    pub fn refused_packets(&self) -> Option<PerDirection<[u64; 2]>> {
        self.counted(RecordedVerdict::Refused)
    }

    /// Packets that passed only because a policy is in mode audit; read as
    /// [`refused_packets`](Self::refused_packets).
    pub fn audited_packets(&self) -> Option<PerDirection<[u64; 2]>> {
        self.counted(RecordedVerdict::Audited)
    }

    fn counted(&self, verdict: RecordedVerdict) -> Option<PerDirection<[u64; 2]>> {
        let counters = NfTables::open(&self.table).ok()?.counters().ok()?;
        let of = |direction| {
            let [v4, v6] = IpFamily::BOTH.map(|family| counters.get(refusal::counter(direction, verdict, family)));
            Some([*v4?, *v6?])
        };
        Some(PerDirection {
            egress: of(Direction::Egress)?,
            ingress: of(Direction::Ingress)?,
        })
    }

    /// Ends interception in fail-mode open by removing the heartbeat; admissions of lookups that
    /// are on their way go on. It ends at once where no other agent was seen. Otherwise it ends
    /// within a beat of the other agent, or, if that one has crashed, when it has missed two.
    pub async fn stop_heartbeat(&self) {
        loop {
            let (done, stopped) = oneshot::channel();
            // An error means that the writer has ended, and its heartbeat with it.
            if self.ask(WriterRequest::StopHeartbeat(done)).is_err() || stopped.await.unwrap_or(true) {
                return;
            }
            tokio::time::sleep(heartbeat::LOOK).await;
        }
    }

    /// Whether another agent of this node is alive, which keeps the rules when this one ends.
    pub fn is_followed(&self) -> bool {
        !self.heartbeat.others().is_empty()
    }

    /// As [`stop_heartbeat`](Self::stop_heartbeat), and stops the writer; enforcement stays.
    pub async fn shut_down(&self) {
        self.stop_heartbeat().await;
        let (done, ended) = oneshot::channel();
        if self.ask(WriterRequest::ShutDown(done)).is_ok() {
            // An error means that the writer has ended already.
            let _ = ended.await;
        }
    }

    /// Lets the calling thread do the writer's work, and returns the work if it has too many
    /// elements or somebody else writes.
    fn by_caller<W, T>(
        &self,
        elements: usize,
        work: W,
        carry_out: impl FnOnce(&mut KernelWriter<NfTables>, W) -> T,
    ) -> Result<T, W> {
        if elements > BY_CALLER {
            return Err(work);
        }
        let began = clock::now();
        let Some(mut writer) = self.writer_slot.try_take(began) else {
            return Err(work);
        };
        let outcome = carry_out(&mut writer, work);
        drop(writer);
        self.writer_slot.took(began, clock::now());
        Ok(outcome)
    }

    fn ask(&self, request: WriterRequest) -> Result<(), WriterStopped> {
        self.send(request).map_err(|_| WriterStopped)
    }

    /// Returns the request when the writer has ended.
    fn send(&self, request: WriterRequest) -> Result<(), WriterRequest> {
        self.queue.send(request).map_err(|refused| refused.0)
    }
}

impl fmt::Debug for Enforcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enforcer")
            .field("generation", &self.generation())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The writer has ended and takes no requests.
struct WriterStopped;
