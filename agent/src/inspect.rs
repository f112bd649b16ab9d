//! What the running agent shows of itself.

use std::sync::Arc;

use api::{AgentStatus, AnsweredNameRow, EventRow, ExplainAnswer, NameRow, Records, RuleRow, SuggestionAnswer};
use cluster::kubernetes::health::SourceFigures;
use enforcer::audit::DamageKind;
use enforcer::writer::WriterStats;
use events::{Event, EventLog};
use hubble::ObservedNode;
use policy::PerDirection;

use crate::explain::ExplainRequest;
use crate::suggestion::SuggestionRequest;

/// What the local API, `/readyz` and `/metrics` ask the agent.
pub trait Inspect: Send + Sync + 'static {
    /// The whole state, for `namegate status`.
    fn status(&self) -> AgentStatus;
    /// Every live lease, for `namegate names`, ordered by name and address.
    fn names(&self) -> Vec<NameRow>;
    /// Which names Pods were answered, ordered by Pod and name.
    fn answered(&self) -> Vec<AnsweredNameRow>;
    /// Every rule in force, with what is known of its use.
    fn rules(&self) -> Vec<RuleRow>;
    /// What was refused, or would have been, for `namegate drops`.
    fn records(&self) -> Records;
    /// Ready only when the ruleset is in the kernel and all DNS listeners are bound; otherwise what
    /// is missing.
    fn readiness(&self) -> Result<(), String>;
    /// What somebody may miss although it is ready.
    fn remark(&self) -> Option<String> {
        None
    }
    /// Why a pod may reach a destination, for `namegate explain`; an error says why that cannot be
    /// told.
    fn explain(&self, asked: &ExplainRequest) -> Result<ExplainAnswer, String>;
    /// The policy for what a pod was seen to do, for `namegate suggest`; an error says why there is
    /// none.
    fn suggestion(&self, asked: &SuggestionRequest) -> Result<SuggestionAnswer, String>;
    /// What happened, for `namegate observe`.
    fn events(&self) -> Arc<EventLog>;
    /// An event as it is shown.
    fn event_row(&self, number: u64, event: &Event) -> EventRow;
    /// The name of this node.
    fn node(&self) -> String;
    /// This node with what is remembered of it, for the observer API.
    fn observed_node(&self) -> ObservedNode;
    /// The kind of the policy in force of this name, as events write it.
    fn policy_kind(&self, policy: &str) -> Option<String>;
    /// Figures for the gauges of `/metrics`.
    fn figures(&self) -> Figures;
}

/// Figures that are read when scraped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// The counters of the writer to the kernel.
    pub writer: WriterStats,
    /// Names with live leases.
    pub names: usize,
    /// Name–address pairs with live leases.
    pub addresses: usize,
    /// Names forgotten to make room, since the start.
    pub evicted_names: u64,
    /// Addresses of answers that were not opened, because a name may not hold so many; since the
    /// start.
    pub left_out_addresses: u64,
    /// Local endpoints with a program.
    pub endpoints_selected: usize,
    /// Local endpoints in all.
    pub endpoints: usize,
    /// How many distinct programs are in force.
    pub programs: usize,
    /// Policies by state: accepted, partial, kept-last-good, rejected.
    pub policies: [usize; 4],
    /// Lookups in flight.
    pub lookups_in_flight: usize,
    /// Connections that are looked into and open.
    pub inspected_connections: usize,
    /// Packets refused in each direction, from the kernel's counters: IPv4, IPv6.
    pub refused_packets: PerDirection<[u64; 2]>,
    /// How often records were lost because too many came.
    pub record_overruns: u64,
    /// Upstreams that do not answer.
    pub silent_upstreams: usize,
    /// Of a source that can be away.
    pub source: Option<SourceFigures>,
    /// Of other clusters.
    pub other_clusters: Vec<OtherClusterGauges>,
    /// How many agents of the supervisor have died.
    pub deaths: u32,
    /// Files of the state directory that cannot be written.
    pub unwritten_files: usize,
    /// Repairs of what others had damaged, by the kinds of [`DamageKind::ALL`].
    pub repairs: [u64; DamageKind::ALL.len()],
    /// What is damaged and not repaired.
    pub damage: usize,
    /// Sysctls that somebody has changed and that are the owner's to set back.
    pub settings: usize,
}

/// Figures of another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClusterGauges {
    /// Its name, which the configuration gives.
    pub name: Arc<str>,
    /// Pods that are known of it.
    pub pods: usize,
    /// Ranges and addresses of it that cannot be told from another cluster's.
    pub contested: usize,
    /// Of its API server, if it has one.
    pub source: Option<SourceFigures>,
}

/// An agent that shows what it is told to, for the tests of what shows it.
#[cfg(test)]
pub(crate) mod fake {
    use api::examples;

    use super::*;

    pub(crate) struct Fake {
        missing: Option<String>,
        pub(crate) names: Vec<NameRow>,
        pub(crate) records: Records,
        pub(crate) events: Arc<EventLog>,
    }

    impl Fake {
        pub(crate) fn ready() -> Self {
            Self {
                missing: None,
                names: examples::names(),
                records: examples::records(),
                events: Arc::new(EventLog::new(events::RingLimits::default())),
            }
        }

        pub(crate) fn not_ready(missing: &str) -> Self {
            Self {
                missing: Some(missing.into()),
                ..Self::ready()
            }
        }
    }

    impl Inspect for Fake {
        fn explain(&self, asked: &ExplainRequest) -> Result<ExplainAnswer, String> {
            Err(format!("there is no pod {}", asked.from))
        }

        fn status(&self) -> AgentStatus {
            AgentStatus {
                names: self.names.len(),
                addresses: self.names.len(),
                ..examples::status(self.missing.as_deref())
            }
        }

        fn names(&self) -> Vec<NameRow> {
            self.names.clone()
        }

        fn answered(&self) -> Vec<AnsweredNameRow> {
            Vec::new()
        }

        fn rules(&self) -> Vec<RuleRow> {
            Vec::new()
        }

        fn records(&self) -> Records {
            self.records.clone()
        }

        fn readiness(&self) -> Result<(), String> {
            self.missing.clone().map_or(Ok(()), Err)
        }

        fn suggestion(&self, asked: &SuggestionRequest) -> Result<SuggestionAnswer, String> {
            Err(format!("nothing is remembered of {}", asked.pod))
        }

        fn events(&self) -> Arc<EventLog> {
            Arc::clone(&self.events)
        }

        fn event_row(&self, number: u64, event: &Event) -> EventRow {
            EventRow {
                sequence: number,
                verdict: event.verdict.as_str().into(),
                ..EventRow::default()
            }
        }

        fn node(&self) -> String {
            "node-1".into()
        }

        fn observed_node(&self) -> ObservedNode {
            ObservedNode::default()
        }

        fn policy_kind(&self, _: &str) -> Option<String> {
            None
        }

        fn figures(&self) -> Figures {
            Figures {
                names: self.names.len(),
                ..Figures::default()
            }
        }
    }
}
