//! Logs and records the answers that were withheld from clients.

use std::net::{IpAddr, SocketAddr};

use dns_proxy::AdmissionErrorKind;
use dns_proxy::WithheldReason;
use names::Name;
use tracing::{error, warn};

use crate::records::WithheldAnswer;

use super::{GateCore, lookup_log};

impl GateCore {
    /// Records an answer that was withheld. A client can cause this at will, so there is one line a
    /// second in the log at most.
    pub(super) fn withheld(
        &self,
        client: Option<IpAddr>,
        (name, upstream): (&Name, SocketAddr),
        (withheld, why): (WithheldReason, &str),
    ) {
        let now = clock::now();
        let in_force = self.in_force.load();
        let governed = client.and_then(|client| in_force.plan.governed.get(&client));
        let endpoint = governed.map(|governed| &governed.id);
        self.withheld.note(
            now,
            WithheldAnswer {
                client,
                endpoint,
                name,
                upstream,
                why: withheld,
                text: why,
            },
        );
        lookup_log::withheld(&in_force.plan, client, (name, upstream), why);
        if let Some(client) = client {
            self.failed(&in_force.plan, client, (name, Some(upstream)), why);
        }
        let Some(others) = self.complaints.pass(now) else {
            return;
        };
        let client = match (endpoint, client) {
            (Some(endpoint), _) => endpoint.to_string(),
            (None, Some(client)) => client.to_string(),
            (None, None) => "the answer cache".into(),
        };
        match withheld {
            WithheldReason::NotAdmitted(AdmissionErrorKind::Full | AdmissionErrorKind::Refused) => {
                error!(%name, endpoint = client, %upstream, why, others, "an answer was withheld");
            }
            WithheldReason::Invalid(_)
            | WithheldReason::NotAdmitted(AdmissionErrorKind::TimedOut | AdmissionErrorKind::Stopped) => {
                warn!(%name, endpoint = client, %upstream, why, others, "an answer was withheld");
            }
        }
    }
}
