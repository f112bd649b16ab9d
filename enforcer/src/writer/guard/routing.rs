//! Keeps the addresses, rules and routes that interception needs.

use std::time::Duration;

use clock::Time;

use crate::audit;
use crate::routing::RoutingWatch;
use crate::writer::kernel::NfTables;
use crate::writer::kernel_writer::KernelWriter;

/// How often they are checked although no change was notified.
const ANYWAY: Duration = Duration::from_secs(30);

impl KernelWriter<NfTables> {
    /// Begins to watch what the mode needs, if it is not watched. An object that is missing now
    /// counts as one that this node cannot have: so this follows its setting up at once. Returns
    /// whether the mode was watched before.
    pub(in crate::writer) fn watch_routing(&mut self, now: Time) -> bool {
        let (Some(guard), Some(mode)) = (&mut self.guard, self.interception) else {
            return false;
        };
        let routing = &mut guard.routing;
        if routing.watch.as_ref().is_some_and(|(watched, _)| *watched == mode) {
            return true;
        }
        let (watch, restored) = match RoutingWatch::open(&mode) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, "addresses and routes cannot be watched yet");
                return false;
            }
        };
        routing.watch = Some((mode, watch));
        routing.damaged.clear();
        routing.looked = now;
        if !restored.is_empty() {
            self.report_repair(restored, Some(now));
        }
        false
    }

    /// Reads what the kernel has notified of since.
    pub(super) fn hear(&mut self) {
        if let Some((_, watch)) = self.guard.as_mut().and_then(|guard| guard.routing.watch.as_mut()) {
            watch.hear();
        }
    }

    /// Checks what was [heard](Self::hear) of, and everything now and then.
    pub(super) fn check_routing(&mut self, now: Time) {
        if !self.watch_routing(now) {
            return;
        }
        let Some(guard) = &mut self.guard else { return };
        let routing = &mut guard.routing;
        let Some((_, watch)) = &mut routing.watch else { return };
        let is_due = watch.is_routing_changed() || !routing.damaged.is_empty() || now.since(routing.looked) >= ANYWAY;
        if !is_due {
            return;
        }
        let noticed = *routing.noticed.get_or_insert(now);
        if !routing.backoff.allows(now) {
            let (damaged, failure) = (
                watch.suspected(),
                Some("something else removes it again and again".to_owned()),
            );
            (routing.damaged, routing.failure) = (damaged, failure);
            return;
        }
        routing.looked = now;
        match watch.restore() {
            Ok(restored) => {
                routing.damaged.clear();
                routing.failure = None;
                routing.noticed = None;
                if !restored.is_empty() {
                    routing.backoff.repaired(clock::now());
                    self.report_repair(restored, Some(noticed));
                }
            }
            Err((damaged, error)) => {
                routing.backoff.repaired(now);
                let damaged = vec![damaged];
                if routing.damaged != damaged {
                    tracing::warn!(damage = audit::brief(&damaged), %error, "it cannot be put back");
                }
                (routing.damaged, routing.failure) = (damaged, Some(error.to_string()));
            }
        }
    }
}
