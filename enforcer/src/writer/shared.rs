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
    /// Changes whenever elements may cease to be in the kernel otherwise than by the end of their
    /// time, or may not be relied on.
    pub(super) epoch: AtomicU64,
    pub(super) counters: WriterCounters,
    pub(super) table_lost: Notify,
    /// The heart found no table: what the writer believes to be installed is not.
    pub(super) is_table_gone: AtomicBool,
    pub(super) integrity: watch::Sender<Integrity>,
}

impl WriterShared {
    /// The book, for as short as possible and never across a system call.
    pub(super) fn mirror(&self) -> MutexGuard<'_, SetMirror> {
        self.mirror.lock()
    }

    /// What was in the kernel before may not be relied on any more without a look into the book. To
    /// be called when the book says so already: who looks between the two finds nothing.
    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Nothing that we believe of the table holds.
    pub(super) fn table_is_lost(&self) {
        tracing::error!("the table was removed from outside; egress is open until it is installed again");
        drop(self.mirror().forget());
        self.begin_epoch();
        self.table_lost.notify_one();
    }
}
