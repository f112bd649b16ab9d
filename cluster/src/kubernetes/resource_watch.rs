//! One watch of the API server, with its back-off.

use std::sync::Arc;
use std::time::Duration;

use api::error_chain;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kube::core::dynamic::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::slim::WireObject;

use super::health::SourceHealth;
use super::resources::{KeptFields, Resource, ResourceKind, WatchScope};
use super::watch_cache::WatchEvent;
use super::wire::Observe;

/// The back-off after failures. The longest pause bounds what thousands of agents ask of an API
/// server that is starting.
const TROUBLE: WatchBackoff = WatchBackoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(30),
};
/// Pauses of the one watch of an agent that looks whether an API server which does not even answer
/// is back. Such an attempt costs the API server nothing while it is away, and one connection for
/// each agent when it is back.
const AWAY: WatchBackoff = WatchBackoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(3),
};
/// After the scout is answered, the other watches come back spread over this time.
const RETURN: Duration = Duration::from_secs(1);
/// The back-off of a watch whose kind the API server does not have.
const ABSENCE: WatchBackoff = WatchBackoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

/// The status code with which the API server says that a version is too old.
const GONE: u16 = 410;

/// Tells all watches, some of which may pause for long, that the API server answers one of them
/// again.
#[derive(Debug, Clone)]
pub(super) struct Recovery(Arc<watch::Sender<u64>>);

impl Default for Recovery {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// Sends the events of one resource until the receiver is dropped.
pub(super) async fn follow(
    client: Client,
    kind: &'static ResourceKind,
    scope: WatchScope,
    health: SourceHealth,
    recovery: Recovery,
    events: mpsc::Sender<(Resource, WatchEvent)>,
) {
    let mut config = watcher::Config {
        field_selector: kind.selector(&scope),
        // One object at a time, and from the API server's memory. A list in pages where that is not
        // to be had.
        initial_list_strategy: watcher::InitialListStrategy::StreamingList,
        ..watcher::Config::default()
    };
    let (mut trouble, mut absence) = (TROUBLE.begin(), ABSENCE.begin());
    // The server answers, is in trouble of this watch's own, or does not answer at all.
    let away = if kind.resource == scope.scout() { AWAY } else { TROUBLE };
    let mut silence = away.begin();
    let mut recovered = recovery.0.subscribe();
    // The one that the API server has, or the first that it is asked for.
    let mut versions = kind.versions();
    let mut version = kind.version;
    versions.next();
    let mut stream = watch_kind(client.clone(), kind, version, config.clone());
    while let Some(outcome) = stream.next().await {
        match outcome.map_err(|error| WatchFailure::of(&error, &config)) {
            Ok(event) => {
                // The beginning of a list says nothing of the API server yet.
                if !matches!(event, WatchEvent::Init) {
                    if !silence.is_first() {
                        recovery.0.send_modify(|times| *times += 1);
                    }
                    (trouble, absence, silence) = (TROUBLE.begin(), ABSENCE.begin(), away.begin());
                    health.is_well(kind.resource);
                }
                if events.send((kind.resource, event)).await.is_err() {
                    return;
                }
            }
            Err(WatchFailure::NoStreamingLists) => {
                debug!(kind = kind.kind, "the API server does not stream lists; reading pages");
                config.initial_list_strategy = watcher::InitialListStrategy::ListWatch;
                stream = watch_kind(client.clone(), kind, version, config.clone());
            }
            Err(WatchFailure::Absent) => {
                if let Some(older) = versions.next() {
                    debug!(
                        kind = kind.kind,
                        version, "the API server does not have this version; trying {older}"
                    );
                    version = older;
                    stream = watch_kind(client.clone(), kind, version, config.clone());
                    continue;
                }
                if absence.is_first() && !kind.is_optional() {
                    warn!(
                        kind = kind.kind,
                        api = kind.api_version(),
                        "the API server does not have this kind, so that nothing of it is in force; looking again from time to time"
                    );
                }
                trouble = TROUBLE.begin();
                match kind.is_optional() {
                    true => health.is_well(kind.resource),
                    false => health.is_absent(kind.resource),
                }
                if events.send((kind.resource, WatchEvent::KindAbsent)).await.is_err() {
                    return;
                }
                sleep(absence.next()).await;
                // Any of the versions may come.
                if kind.older.is_some() {
                    versions = kind.versions();
                    version = kind.version;
                    versions.next();
                    stream = watch_kind(client.clone(), kind, version, config.clone());
                }
            }
            Err(WatchFailure::Gone) => {
                info!(
                    kind = kind.kind,
                    "the API server no longer knows what came after what this watch had seen (410 Gone): reading the list again"
                );
                // Not at once: all agents are told so in the same moment.
                sleep(trouble.next()).await;
            }
            Err(WatchFailure::Trouble(reason)) => {
                note(kind, &reason, trouble.is_first());
                health.has_trouble(kind.resource, reason);
                sleep(trouble.next()).await;
            }
            Err(WatchFailure::Silence(reason)) => {
                note(kind, &reason, silence.is_first());
                health.has_trouble(kind.resource, reason);
                // Also when another watch found it back during the attempt that just failed.
                let another_is_answered = async {
                    if recovered.changed().await.is_err() {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    () = sleep(silence.next()) => {}
                    () = another_is_answered => {
                        (trouble, silence) = (TROUBLE.begin(), away.begin());
                        sleep(RETURN.mul_f64(rand::random_range(0.0..=1.0))).await;
                    }
                }
            }
        }
    }
}

fn note(kind: &ResourceKind, reason: &str, is_first: bool) {
    match is_first {
        true => warn!(kind = kind.kind, "the watch broke, and is tried again: {reason}"),
        false => debug!(kind = kind.kind, "the watch is still broken: {reason}"),
    }
}

fn watch_kind(
    client: Client,
    kind: &'static ResourceKind,
    version: &str,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<WatchEvent>> {
    match kind.kept {
        KeptFields::Selected => watch_as::<WireObject>(client, kind, version, config),
        KeptFields::All | KeptFields::Policy { .. } => watch_as::<DynamicObject>(client, kind, version, config),
    }
}

fn watch_as<K>(
    client: Client,
    kind: &'static ResourceKind,
    version: &str,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<WatchEvent>>
where
    K: Observe + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all_with(client, &kind.api_resource(version));
    watcher::watcher(api, config)
        .map_ok(move |event| match event {
            Event::Init => WatchEvent::Init,
            Event::InitApply(object) => WatchEvent::InitApply(object.observe(kind)),
            Event::InitDone => WatchEvent::InitDone,
            Event::Apply(object) => WatchEvent::Apply(object.observe(kind)),
            Event::Delete(object) => WatchEvent::Delete(object.namespace().unwrap_or_default(), object.name_any()),
        })
        .boxed()
}

/// What a failure of a watch means.
#[derive(Debug, PartialEq, Eq)]
enum WatchFailure {
    /// The API server does not know the kind.
    Absent,
    /// It does not know how to stream a list.
    NoStreamingLists,
    /// What came after the version that was seen last is no longer known; the watcher begins anew.
    Gone,
    /// Anything else that it says: it is tried again.
    Trouble(String),
    /// It does not answer.
    Silence(String),
}

impl WatchFailure {
    fn of(error: &watcher::Error, config: &watcher::Config) -> Self {
        let is_silent = matches!(
            error,
            watcher::Error::InitialListFailed(why) | watcher::Error::WatchStartFailed(why) | watcher::Error::WatchFailed(why)
                if !matches!(why, kube::Error::Api(_))
        );
        let refused = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
            // Told in the stream, after it began.
            watcher::Error::WatchError(status) => Some(status.code).filter(|code| *code == GONE),
            _ => None,
        };
        let streams = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
        match refused {
            Some(404) => WatchFailure::Absent,
            Some(GONE) => WatchFailure::Gone,
            Some(400 | 422) if streams => WatchFailure::NoStreamingLists,
            Some(403) => WatchFailure::Trouble(format!(
                "{error}; the agent's ClusterRole must let it list and watch this kind"
            )),
            _ if is_silent => WatchFailure::Silence(error_chain(error)),
            _ => WatchFailure::Trouble(error_chain(error)),
        }
    }
}

/// Pauses that double, each shortened by chance to as little as a half, so that those who failed
/// together do not come back together.
#[derive(Debug, Clone, Copy)]
struct WatchBackoff {
    first: Duration,
    longest: Duration,
}

#[derive(Debug)]
struct Pausing {
    pauses: WatchBackoff,
    count: u32,
}

impl WatchBackoff {
    fn begin(self) -> Pausing {
        Pausing { pauses: self, count: 0 }
    }
}

impl Pausing {
    fn is_first(&self) -> bool {
        self.count == 0
    }

    fn next(&mut self) -> Duration {
        let doubled = self.pauses.first.saturating_mul(1 << self.count.min(16));
        self.count = self.count.saturating_add(1);
        doubled.min(self.pauses.longest).mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pausing = TROUBLE.begin();
        let mut expected = 0.2;
        for _ in 0..20 {
            let pause = pausing.next().as_secs_f64();
            assert!(
                (expected / 2.0..=expected).contains(&pause),
                "{pause} where at most {expected}"
            );
            expected = f64::min(expected * 2.0, 30.0);
        }
    }

    #[test]
    fn a_missing_kind_is_told_from_other_failures() {
        let failure = |code: u16, streams: bool| {
            let status = kube::core::Status {
                code,
                ..Default::default()
            };
            let config = match streams {
                true => watcher::Config::default().streaming_lists(),
                false => watcher::Config::default(),
            };
            WatchFailure::of(
                &watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status))),
                &config,
            )
        };
        assert_eq!(failure(404, true), WatchFailure::Absent);
        assert_eq!(failure(404, false), WatchFailure::Absent);
        assert_eq!(failure(422, true), WatchFailure::NoStreamingLists);
        assert!(matches!(failure(422, false), WatchFailure::Trouble(_)));
        assert!(matches!(failure(403, true), WatchFailure::Trouble(reason) if reason.contains("ClusterRole")));
        assert!(matches!(failure(503, true), WatchFailure::Trouble(_)));
        assert_eq!(failure(410, true), WatchFailure::Gone);
        assert_eq!(failure(410, false), WatchFailure::Gone);
    }
}
