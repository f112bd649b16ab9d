//! Events to whoever asks for them, as they come: as lines of JSON, or rendered for a browser.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::EventRow;
use axum::body::{Body, Bytes};
use events::{Event, EventReader};
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::event_rows::{self, EventRequest};
use crate::inspect::Inspect;

/// How often it is looked for new events. Whoever records one wakes nobody, so that recording stays
/// cheap.
const PAUSE: Duration = Duration::from_millis(100);

/// What is sent where nothing happens, so that a browser that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamFormat {
    /// One JSON object a line.
    Lines,
    /// Server-sent events of the HTML standard, each with the rows of a table that a page shows.
    TableRows,
}

/// What one reader is told.
struct EventFeed {
    inspect: Arc<dyn Inspect>,
    reader: EventReader,
    request: EventRequest,
    format: StreamFormat,
    /// Whether what is remembered was told already.
    began: bool,
    /// Counts the reader among those that there may be.
    _place: Option<OwnedSemaphorePermit>,
}

/// What has come since the last look.
struct WantedEvents {
    events: VecDeque<(u64, Arc<Event>)>,
    lost: u64,
}

/// The body of an answer. It gives `place` back when it ends.
pub(crate) fn body(
    inspect: Arc<dyn Inspect>,
    request: EventRequest,
    format: StreamFormat,
    place: Option<OwnedSemaphorePermit>,
) -> Body {
    let log = inspect.events();
    // Who does not stay sees nothing of what begins to be recorded.
    let watched: Vec<_> = match request.follow {
        true => request.filter.watched().collect(),
        false => Vec::new(),
    };
    let asks_for_past = !request.follow || request.last.is_some() || request.filter.since.is_some();
    let feed = EventFeed {
        reader: match request.after {
            Some(after) => log.read_after(after, watched),
            None if asks_for_past => log.read_all(watched),
            None => log.read_new(watched),
        },
        inspect,
        request,
        format,
        began: false,
        _place: place,
    };
    Body::from_stream(texts(feed))
}

fn texts(feed: EventFeed) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(feed, |mut feed| async move {
        let began = Instant::now();
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
            if feed.format == StreamFormat::TableRows && began.elapsed() >= KEEP_ALIVE {
                return Some((Ok(Bytes::from_static(b":\n\n")), feed));
            }
        }
    })
}

/// What is remembered and wanted, without what comes: the last so many. With them, the number of
/// the last event of all.
pub(crate) fn remembered(inspect: &dyn Inspect, request: &EventRequest, last: usize) -> (Vec<EventRow>, u64) {
    let batch = inspect.events().remembered();
    let wanted = batch
        .events
        .iter()
        .rev()
        .filter(|(_, event)| request.filter.matches(event));
    let rows = wanted
        .take(last)
        .map(|(number, event)| inspect.event_row(*number, event));
    let mut rows: Vec<EventRow> = rows.collect();
    rows.reverse();
    (rows, batch.events.last().map_or(0, |(number, _)| *number))
}

impl EventFeed {
    /// What has come since, as it is sent.
    fn next(&mut self) -> Vec<u8> {
        let wanted = self.wanted();
        match self.format {
            StreamFormat::Lines => self.lines(wanted),
            StreamFormat::TableRows => self.table_rows(wanted),
        }
    }

    fn wanted(&mut self) -> WantedEvents {
        let batch = self.reader.next_batch();
        let events = batch.events.into_iter();
        let mut events: VecDeque<_> = events.filter(|(_, event)| self.request.filter.matches(event)).collect();
        if !self.began
            && let Some(last) = self.request.last
        {
            events.drain(..events.len().saturating_sub(last));
        }
        self.began = true;
        WantedEvents {
            events,
            lost: batch.lost,
        }
    }

    fn lines(&self, wanted: WantedEvents) -> Vec<u8> {
        let mut text = Vec::new();
        if wanted.lost > 0 {
            let node = self.inspect.node();
            push_line(&mut text, &event_rows::lost(wanted.lost, &node, clock::wall_now()));
        }
        for (number, event) in &wanted.events {
            push_line(&mut text, &self.inspect.event_row(*number, event));
        }
        text
    }

    /// No more rows than are shown, whatever comes.
    fn table_rows(&self, wanted: WantedEvents) -> Vec<u8> {
        let WantedEvents { events, lost } = wanted;
        if events.is_empty() && lost == 0 {
            return Vec::new();
        }
        let shown = events.range(events.len().saturating_sub(web::events::SHOWN)..);
        let rows: Vec<EventRow> = shown
            .map(|(number, event)| self.inspect.event_row(*number, event))
            .collect();
        let batch = serde_json::json!({
            "events": events.len(),
            "lost": lost,
            "rows": web::events::rows(&rows).into_string(),
        });
        // A browser that has lost the connection says this number when it comes again. JSON has no
        // line ends of its own.
        format!("id: {}\ndata: {batch}\n\n", self.reader.position()).into_bytes()
    }
}

fn push_line(text: &mut Vec<u8>, row: &EventRow) {
    // A row has nothing that JSON cannot say.
    if serde_json::to_writer(&mut *text, row).is_ok() {
        text.push(b'\n');
    }
}
