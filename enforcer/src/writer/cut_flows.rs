//! Which flows are cut now.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Time;

use crate::ruleset::cut_chains::CutEnds;

/// The flows that are cut now.
#[derive(Debug, Default)]
pub(super) struct CutFlows {
    /// Until when, each.
    pub(super) until: BTreeMap<CutEnds, Time>,
    /// Whether the chains stand.
    pub(super) stand: bool,
    /// When it is to be seen whether anything is cut still.
    pub(super) next_look: Time,
}

impl CutFlows {
    /// Notes that an agent before this one has cut flows, whose elements are in force still.
    pub(super) fn adopt(&mut self) {
        self.stand = true;
    }

    /// How long it takes until the next look.
    pub(super) fn pause(&self, now: Time) -> Duration {
        match self.stand {
            true => self.next_look.since(now),
            false => Duration::MAX,
        }
    }
}
