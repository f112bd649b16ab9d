//! The state of the one writer. What it does is in files of its own: [`commit`](super::commit),
//! [`install`](super::install), [`sweep`](super::sweep), [`guard`](super::guard).

use std::sync::Arc;

use clock::Time;

use crate::desired::{DesiredState, Interception};

use super::guard::TableGuard;
use super::heartbeat::Heartbeat;
use super::kernel::Kernel;
use super::renewal::Renewal;
use super::set_mirror::AdmissionPhase;
use super::shared::WriterShared;

/// The writer's state.
#[derive(Debug)]
pub(super) struct KernelWriter<K> {
    pub(super) kernel: K,
    pub(super) shared: Arc<WriterShared>,
    pub(super) renewal: Renewal,
    /// What is in force, unless the table was lost since, or an installation failed and left it
    /// unclear.
    pub(super) installed: Option<DesiredState>,
    /// The way of interception that routing was last set up for.
    pub(super) interception: Option<Interception>,
    pub(super) heartbeat: Arc<Heartbeat<K>>,
    pub(super) sweeps: Sweeps,
    /// Notices what others do to the table, and repairs it; `None` where nobody asked for that.
    pub(super) guard: Option<Box<TableGuard>>,
}

/// When what is over was last deleted, and since when no other agent is there.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    pub(super) last: Time,
    pub(super) alone: Option<Time>,
}

impl<K: Kernel> KernelWriter<K> {
    /// Somebody removed the table, or sets from it: nothing that we believe of it holds.
    pub(super) fn table_is_lost(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.suspect();
            // Until it is repaired, which is at the end of this turn, nothing is released that we
            // only believe to stand.
            self.shared.mirror().phase = AdmissionPhase::Installing;
            return self.shared.begin_epoch();
        }
        self.installed = None;
        self.heartbeat.pause();
        self.shared.table_is_lost();
    }
}
