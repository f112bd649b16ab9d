//! Events to whoever asks for them, one JSON object a line, as they come.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::EventRow;
use axum::body::{Body, Bytes};
use events::EventReader;
use futures::Stream;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::event_rows::{self, EventRequest};
use crate::inspect::Inspect;

/// How often it is looked for new events. Whoever records one wakes nobody, so that recording stays
/// cheap.
const PAUSE: Duration = Duration::from_millis(100);

/// What one reader is told.
struct EventFeed {
    inspect: Arc<dyn Inspect>,
    reader: EventReader,
    request: EventRequest,
    /// Whether what is remembered was told already.
    began: bool,
}

/// The body of an answer.
pub(crate) fn body(inspect: Arc<dyn Inspect>, request: EventRequest) -> Body {
    let log = inspect.events();
    // Who does not stay sees nothing of what begins to be recorded.
    let watched: Vec<_> = match request.follow {
        true => request.filter.watched().collect(),
        false => Vec::new(),
    };
    let asks_for_past = !request.follow || request.last.is_some() || request.filter.since.is_some();
    let feed = EventFeed {
        reader: match asks_for_past {
            true => log.read_all(watched),
            false => log.read_new(watched),
        },
        inspect,
        request,
        began: false,
    };
    Body::from_stream(lines(feed))
}

fn lines(feed: EventFeed) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(feed, |mut feed| async move {
        loop {
            if feed.began && !feed.request.follow {
                return None;
            }
            if feed.began {
                sleep(PAUSE).await;
            }
            // Where much is remembered, this takes milliseconds.
            let (next, text) = spawn_blocking(move || {
                let text = feed.next();
                (feed, text)
            })
            .await
            .ok()?;
            feed = next;
            if !text.is_empty() {
                return Some((Ok(Bytes::from(text)), feed));
            }
        }
    })
}

impl EventFeed {
    /// What has come since, as lines.
    fn next(&mut self) -> Vec<u8> {
        let batch = self.reader.next_batch();
        let wanted = batch
            .events
            .iter()
            .filter(|(_, event)| self.request.filter.matches(event));
        let mut wanted: VecDeque<_> = wanted.collect();
        if !self.began
            && let Some(last) = self.request.last
        {
            wanted.drain(..wanted.len().saturating_sub(last));
        }
        self.began = true;
        let mut text = Vec::new();
        if batch.lost > 0 {
            let node = self.inspect.node();
            push_line(&mut text, &event_rows::lost(batch.lost, &node, clock::wall_now()));
        }
        for (number, event) in wanted {
            push_line(&mut text, &self.inspect.event_row(*number, event));
        }
        text
    }
}

fn push_line(text: &mut Vec<u8>, row: &EventRow) {
    // A row has nothing that JSON cannot say.
    if serde_json::to_writer(&mut *text, row).is_ok() {
        text.push(b'\n');
    }
}
