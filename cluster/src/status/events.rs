//! Events of policies.
//!
//! An Event that happens again is one object that counts, and all of it but the count stands for
//! good (`events.k8s.io/v1`). So only what says the same is the same Event: with another note a new
//! one begins, or people would go on reading the first.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::time::Instant;

/// For as long as [`Recorder`] counts an Event that happens again, before it begins a new one.
const SERIES: Duration = Duration::from_secs(360);

/// Sends Events, and remembers which were sent lately.
pub(super) struct EventPublisher {
    client: Client,
    reporter: Reporter,
    /// By the object and the reason.
    lately: BTreeMap<(String, String), SentEvent>,
}

struct SentEvent {
    note: Option<String>,
    /// Of this note alone: it counts whatever is published through it as one Event.
    recorder: Recorder,
    at: Instant,
}

impl EventPublisher {
    pub(super) fn new(client: Client, reporter: Reporter) -> Self {
        Self {
            client,
            reporter,
            lately: BTreeMap::new(),
        }
    }

    /// Says that `event` happened to an object.
    pub(super) async fn publish(&mut self, event: &Event, regarding: &ObjectReference) -> Result<(), kube::Error> {
        let now = Instant::now();
        self.lately.retain(|_, sent| sent.at + SERIES > now);
        let key = (regarding.uid.clone().unwrap_or_default(), event.reason.clone());
        let (client, reporter) = (&self.client, &self.reporter);
        let begin = || SentEvent {
            note: event.note.clone(),
            recorder: Recorder::new(client.clone(), reporter.clone()),
            at: now,
        };
        let sent = self.lately.entry(key).or_insert_with(begin);
        if sent.note != event.note {
            *sent = begin();
        }
        sent.at = now;
        sent.recorder.publish(event, regarding).await
    }
}
