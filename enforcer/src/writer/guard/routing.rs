//! What interception needs outside nftables.

use std::time::Duration;

use clock::Time;

use crate::audit::schedule::RepairBackoff;
use crate::audit::{self, Damage};
use crate::desired::Interception;
use crate::routing::RoutingWatch;
use crate::writer::kernel::NfTables;
use crate::writer::kernel_writer::KernelWriter;

/// How often it is looked although nothing was heard.
const ANYWAY: Duration = Duration::from_secs(30);

/// What is known of addresses, rules and routes.
#[derive(Debug, Default)]
pub(super) struct RoutingCheck {
    watch: Option<(Interception, RoutingWatch)>,
    looked: Time,
    /// Something is the matter, and was not put right.
    damaged: Vec<Damage>,
    failure: Option<String>,
    noticed: Option<Time>,
    backoff: RepairBackoff,
}

impl RoutingCheck {
    /// What is not as it should be.
    pub(super) fn damaged(&self) -> &[Damage] {
        &self.damaged
    }

    /// Whether the mode has its IPv6 half.
    pub(super) fn has_ipv6(&self) -> bool {
        self.watch.as_ref().is_some_and(|(_, watch)| watch.has_ipv6())
    }

    /// Why.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.clone()
    }
}

impl KernelWriter<NfTables> {
    pub(super) fn look_at_routing(&mut self, now: Time) {
        let (Some(guard), Some(mode)) = (&mut self.guard, self.interception) else {
            return;
        };
        let routing = &mut guard.routing;
        if routing.watch.as_ref().is_none_or(|(watched, _)| *watched != mode) {
            let (watch, restored) = match RoutingWatch::open(&mode) {
                Ok(opened) => opened,
                Err(error) => return tracing::debug!(%error, "addresses and routes cannot be watched yet"),
            };
            routing.watch = Some((mode, watch));
            routing.damaged.clear();
            routing.looked = now;
            if !restored.is_empty() {
                self.tell_repair(restored, Some(now));
            }
            return;
        }
        let Some((_, watch)) = &mut routing.watch else { return };
        let is_due = watch.has_news() || !routing.damaged.is_empty() || now.since(routing.looked) >= ANYWAY;
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
                    self.tell_repair(restored, Some(noticed));
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
