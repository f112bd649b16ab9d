//! What the tasks of a running agent share.

use std::sync::Arc;

use api::RecordsSummary;
use dns_proxy::DnsServer;
use enforcer::Enforcer;
use events::EventLog;
use fqdn_cache::Ledger;
use parking_lot::Mutex;
use policy::PerDirection;
use settings::Settings;
use supervisor::Supervision;

use crate::gate::NodeGate;
use crate::inspector::Inspector;
use crate::local_authority::LocalAuthority;
use crate::records::Recorder;

/// Handles to the parts of a running agent; cheap to clone.
#[derive(Clone)]
pub struct AgentHandles {
    /// What it was told.
    pub settings: Arc<Settings>,
    /// What names resolved to.
    pub ledger: Arc<Mutex<Ledger>>,
    /// The handle of the writer to the kernel.
    pub enforcer: Enforcer,
    /// The plan in force, as lookups see it.
    pub gate: Arc<NodeGate>,
    /// Refused and audited packets.
    pub recorder: Arc<Recorder>,
    /// What happened, for whoever looks.
    pub events: Arc<EventLog>,
    /// With whose certificates TLS ends here, where rules want that.
    pub authority: Option<Arc<LocalAuthority>>,
    /// The DNS listeners. Locked only while they change.
    pub server: Arc<tokio::sync::Mutex<DnsServer<NodeGate>>>,
    /// What looks into connections.
    pub inspector: Arc<Inspector>,
    /// Who starts it again when it dies, if anybody.
    pub supervision: Option<Arc<Supervision>>,
}

impl AgentHandles {
    /// Totals of records, beside what the kernel has counted.
    pub(crate) fn records_summary(&self) -> RecordsSummary {
        let total = |counted: PerDirection<[u64; 2]>| counted.egress.iter().chain(&counted.ingress).sum();
        RecordsSummary {
            refused_packets: self.enforcer.refused_packets().map(total),
            audited_packets: self.enforcer.audited_packets().map(total),
            ..self.recorder.summary()
        }
    }
}
