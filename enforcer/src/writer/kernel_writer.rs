//! The state of the one writer. What it does is in files of their own: [`commit`](super::commit),
//! [`install`](super::install), [`sweep`](super::sweep), [`guard`](super::guard).

use std::sync::Arc;

use clock::Time;

use crate::desired::{DesiredState, Interception};

use super::cut_flows::CutFlows;
use super::heartbeat::Heartbeat;
use super::kernel::Kernel;
use super::renewal::Renewal;
use super::set_mirror::AdmissionPhase;
use super::shared::WriterShared;
use super::table_guard::TableGuard;

/// The one that writes to the kernel, and what it knows of the table.
#[derive(Debug)]
pub(super) struct KernelWriter<K> {
    pub(super) kernel: K,
    pub(super) shared: Arc<WriterShared>,
    pub(super) renewal: Renewal,
    /// The state that is in force; `None` when the table was lost since, or an installation failed
    /// halfway.
    pub(super) installed: Option<Arc<DesiredState>>,
    /// The interception mode that addresses, rules and routes were last set up for.
    pub(super) interception: Option<Interception>,
    pub(super) heartbeat: Arc<Heartbeat<K>>,
    pub(super) sweeps: Sweeps,
    pub(super) cuts: CutFlows,
    /// Repairs what others change; `None` unless the enforcer is guarded.
    pub(super) guard: Option<Box<TableGuard>>,
}

/// When elements were last deleted, and since when this agent has been the only one.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    pub(super) last: Time,
    /// When it was last looked for other agents.
    pub(super) looked: Time,
    pub(super) alone: Option<Time>,
}

impl<K: Kernel> KernelWriter<K> {
    /// Forgets what the table held, because somebody else removed the table or sets of it.
    pub(super) fn table_is_lost(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.suspect();
            // Until the repair at the end of this turn, nothing is released that relies on the
            // mirror alone.
            self.shared.mirror().phase = AdmissionPhase::Installing;
            return self.shared.begin_epoch();
        }
        self.installed = None;
        self.heartbeat.pause();
        self.shared.table_is_lost();
    }
}
