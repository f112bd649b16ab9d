//! The task that keeps a listener.

use std::sync::Arc;
use std::time::Duration;

use enforcer::records::{RecordListener, RecordedPacket};
use names::Name;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::gate::NodeGate;
use planner::Plan;

use super::{Attribution, Recorder, RecorderState};

/// How often it is tried again, and looked whether the listener still runs.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens to `group` in the network namespace of the calling thread until it is dropped. Tries
/// again and again where the kernel does not let it: an agent that is about to leave may still have
/// the group.
pub async fn listen(
    group: u16,
    recorder: Arc<Recorder>,
    gate: Arc<NodeGate>,
    attribute: impl Fn(&Plan, &RecordedPacket, Option<&Name>) -> Option<Attribution> + Clone + Send + Sync + 'static,
) {
    let mut said = None;
    loop {
        let hear = {
            let (recorder, gate, attribute) = (Arc::clone(&recorder), Arc::clone(&gate), attribute.clone());
            move |heard: enforcer::records::RecordEvent<'_>| {
                recorder.hear(clock::now(), heard, &gate.in_force().plan, &attribute);
            }
        };
        match RecordListener::bind(group, hear) {
            Ok(listener) => {
                info!(group, "refused and audited packets are recorded");
                recorder.set_state(RecorderState::On);
                said = None;
                while !listener.has_ended() {
                    sleep(PAUSE).await;
                }
                recorder.set_state(RecorderState::Failed("the listener has ended; the log says why".into()));
            }
            Err(error) => {
                let failure = error.to_string();
                if said.as_ref() != Some(&failure) {
                    warn!(%failure, "packets are not recorded; trying again each second");
                    recorder.set_state(RecorderState::Failed(failure.clone()));
                    said = Some(failure);
                }
            }
        }
        sleep(PAUSE).await;
    }
}
