//! What handles and the writer share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::audit::Integrity;

use super::set_mirror::SetMirror;
use super::stats::WriterCounters;

/// What handles and the writer share.
#[derive(Debug, Default)]
pub(super) struct WriterShared {
    pub(super) mirror: Mutex<SetMirror>,
    /// The epoch changes whenever elements may leave the kernel before the end of their lease, or
    /// may not be relied on. A commit token of an older epoch is void.
    pub(super) epoch: AtomicU64,
    pub(super) counters: WriterCounters,
    pub(super) table_lost: Notify,
    /// The heartbeat found no table: what the writer believes to be installed is not.
    pub(super) is_table_gone: AtomicBool,
    pub(super) integrity: watch::Sender<Integrity>,
}

impl WriterShared {
    /// Locks the mirror. Hold the lock for as short as possible, and never across a system call.
    pub(super) fn mirror(&self) -> MutexGuard<'_, SetMirror> {
        self.mirror.lock()
    }

    /// Voids all commit tokens. Call this after the mirror was changed: a reader between the two
    /// finds nothing in the mirror.
    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets what the table held, because the table is gone.
    pub(super) fn table_is_lost(&self) {
        tracing::error!("the table was removed from outside; egress is open until it is installed again");
        drop(self.mirror().forget());
        self.begin_epoch();
        self.table_lost.notify_one();
    }
}
