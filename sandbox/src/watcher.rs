//! Follows what the command does on the network while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::app::Agent;
use events::account::NetworkAccount;
use events::{EventKind, EventLog, EventReader, RingLimits};

use crate::report::{LiveReport, RefusalReport};

/// How often it is looked. A command that reads its report sees what is that old.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The events of one command: it is the only source, and all of them are wanted.
const LIMITS: RingLimits = RingLimits {
    total: 65_536,
    per_source: 65_536,
    rate: None,
};

/// How long the end waits for packets that the kernel has counted and not yet told of: it tells of
/// them a tenth of a second late.
const SETTLES: Duration = Duration::from_millis(400);

/// Keeps the account of a command, and its live report.
#[derive(Debug)]
pub(crate) struct NetworkWatcher {
    log: Arc<EventLog>,
    reader: EventReader,
    account: NetworkAccount,
    live: LiveReport,
}

impl NetworkWatcher {
    pub(crate) fn new(live: LiveReport) -> Self {
        let log = Arc::new(EventLog::new(LIMITS));
        Self {
            // Packets that are let through are recorded as audited.
            reader: log.read_all([EventKind::Lookup, EventKind::Request]),
            log,
            account: NetworkAccount::default(),
            live,
        }
    }

    /// Where the agent is to record.
    pub(crate) fn log(&self) -> Arc<EventLog> {
        Arc::clone(&self.log)
    }

    /// Takes in what has come, and writes the live report when something new was refused.
    pub(crate) fn look(&mut self) {
        let batch = self.reader.next_batch();
        let mut is_news = batch.lost > 0;
        self.account.lost += batch.lost;
        for (_, event) in &batch.events {
            is_news |= self.account.take(event);
        }
        if is_news {
            // The command goes on without it, and the next refusal tries again.
            let _ = self.live.write(&RefusalReport::of(&self.account));
        }
    }

    /// Waits until what the kernel has counted is recorded. What is not by then counts as lost.
    pub(crate) async fn settle(&mut self, agent: &Agent) {
        let until = Instant::now() + SETTLES;
        let unrecorded = loop {
            let records = agent.records();
            let counted = records.refused_packets.unwrap_or(0) + records.audited_packets.unwrap_or(0);
            let unrecorded = counted.saturating_sub(records.refused + records.audited);
            if unrecorded == 0 || Instant::now() >= until {
                break unrecorded;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.look();
        self.account.lost += unrecorded;
    }

    /// What the command has done so far.
    pub(crate) fn account(&self) -> &NetworkAccount {
        &self.account
    }
}
