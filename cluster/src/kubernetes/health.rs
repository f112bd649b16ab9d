//! The health of the source: how old the objects are, what is missing, and what they take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::SourceStatus;
use parking_lot::{Mutex, MutexGuard};

use super::resources::{KINDS, Resource, ResourceKind};

/// The figures of an API server as a source of objects, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceFigures {
    /// Seconds since something came from it: so old may be what is in force.
    pub age_seconds: u64,
    /// Watches that are broken now.
    pub broken_watches: usize,
    /// Kinds that the API server does not have.
    pub absent_kinds: usize,
    /// What each watch holds, in the order of [`KINDS`].
    pub counts: [ObjectCount; KINDS.len()],
}

/// What a watch holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectCount {
    /// The number of objects.
    pub objects: usize,
    /// The bytes of what is kept of them.
    pub bytes: usize,
}

/// Shared by the watches, which write it, and whoever shows it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceHealth(Arc<HealthInner>);

#[derive(Debug)]
struct HealthInner {
    started: Instant,
    /// Milliseconds after `started` at which something came from the API server; 0: nothing has.
    heard: AtomicU64,
    state: Mutex<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    /// The address of the API server; empty while it is not known.
    server: String,
    /// Why nobody can ask it.
    without_access: Option<String>,
    troubles: BTreeMap<Resource, WatchTrouble>,
    /// Kinds that the API server does not have.
    absent: BTreeSet<Resource>,
    awaited: Vec<Resource>,
    /// Since when the objects in force are as they are, while those of an earlier process are.
    recalled: Option<SystemTime>,
    counts: [ObjectCount; KINDS.len()],
}

#[derive(Debug)]
struct WatchTrouble {
    reason: String,
    /// In milliseconds after `started`.
    since: u64,
}

impl SourceHealth {
    /// The health of a source that has not heard from `server` yet.
    pub(super) fn new(server: String) -> Self {
        Self(Arc::new(HealthInner {
            started: Instant::now(),
            heard: AtomicU64::new(0),
            state: Mutex::new(HealthState {
                server,
                ..HealthState::default()
            }),
        }))
    }

    /// The API server is asked there now.
    pub(super) fn asks(&self, server: String) {
        let mut state = self.state();
        state.server = server;
        state.without_access = None;
        // They were another's, or of other credentials.
        state.troubles.clear();
    }

    /// What says where the API server is, and who we are to it, cannot be used.
    pub(super) fn lacks_access(&self, why: String) {
        self.state().without_access = Some(why);
    }

    /// Something came from the API server.
    pub(super) fn hears(&self) {
        self.0.heard.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn is_well(&self, resource: Resource) {
        let mut state = self.state();
        state.troubles.remove(&resource);
        state.absent.remove(&resource);
    }

    /// The API server does not have the kind.
    pub(super) fn is_absent(&self, resource: Resource) {
        let mut state = self.state();
        state.troubles.remove(&resource);
        state.absent.insert(resource);
    }

    pub(super) fn has_trouble(&self, resource: Resource, reason: String) {
        let since = self.now();
        self.state()
            .troubles
            .entry(resource)
            .and_modify(|trouble| trouble.reason.clone_from(&reason))
            .or_insert(WatchTrouble { reason, since });
    }

    pub(super) fn awaits(&self, resources: Vec<Resource>) {
        self.state().awaited = resources;
    }

    /// What is in force is from an earlier process, which wrote it down then; `None`: not any more.
    pub(super) fn recalled(&self, from: Option<SystemTime>) {
        self.state().recalled = from;
    }

    pub(super) fn holds(&self, sizes: impl Iterator<Item = (Resource, usize, usize)>) {
        let mut counts = [ObjectCount::default(); KINDS.len()];
        for (resource, objects, bytes) in sizes {
            counts[resource as usize] = ObjectCount { objects, bytes };
        }
        self.state().counts = counts;
    }

    /// How old the objects in force may be: for so long nothing has come from the API server. A
    /// watch on which nothing happens is heard of every minute or so.
    pub fn age(&self) -> Duration {
        let recalled = self.state().recalled;
        if let Some(saved) = recalled {
            return unix_now().duration_since(saved).unwrap_or_default();
        }
        let heard = self.0.heard.load(Ordering::Relaxed);
        Duration::from_millis(self.now().saturating_sub(heard))
    }

    /// The figures of now, for the metrics.
    pub fn figures(&self) -> SourceFigures {
        let heard = self.0.heard.load(Ordering::Relaxed);
        let age_seconds = self.age().as_secs();
        let state = self.state();
        SourceFigures {
            age_seconds,
            broken_watches: state.broken(heard).count() + usize::from(state.without_access.is_some()),
            absent_kinds: state.absent.len(),
            counts: state.counts,
        }
    }

    /// The state of now, for `namegate status`.
    pub fn status(&self) -> SourceStatus {
        let heard = self.0.heard.load(Ordering::Relaxed);
        let age_seconds = self.age().as_secs();
        let state = self.state();
        let troubles = state.broken(heard);
        SourceStatus {
            server: state.server.clone(),
            age_seconds,
            recalled: state.recalled.is_some(),
            awaited: state
                .awaited
                .iter()
                .map(|resource| ResourceKind::of(*resource).kind.to_owned())
                .collect(),
            absent: state.absent().collect(),
            troubles: state
                .without_access
                .iter()
                .cloned()
                .chain(
                    troubles
                        .map(|(resource, trouble)| format!("{}: {}", ResourceKind::of(resource).kind, trouble.reason)),
                )
                .collect(),
        }
    }

    /// What somebody may miss who reads that the agent is ready.
    pub fn remark(&self) -> Option<String> {
        let state = self.state();
        let absent: Vec<String> = state.absent().collect();
        (!absent.is_empty()).then(|| {
            format!(
                "the API server does not have {}, so that no policy of that kind is in force (`namegate crds` prints the definitions)",
                absent.join(", ")
            )
        })
    }

    /// What is missing before anything is in force.
    pub fn missing(&self) -> String {
        let state = self.state();
        let awaited: Vec<&str> = state
            .awaited
            .iter()
            .map(|resource| ResourceKind::of(*resource).kind)
            .collect();
        let mut text = format!("the API server at {} has not told all objects yet", state.server);
        if !awaited.is_empty() {
            text.push_str(&format!(" (missing: {})", awaited.join(", ")));
        }
        if let Some(trouble) = state.troubles.values().next() {
            text.push_str(&format!(": {}", trouble.reason));
        }
        text
    }

    /// Milliseconds after the start, from 1: 0 stands for never.
    fn now(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.0.state.lock()
    }
}

impl HealthState {
    fn absent(&self) -> impl Iterator<Item = String> {
        let kinds = self.absent.iter().map(|resource| ResourceKind::of(*resource));
        kinds.map(|kind| format!("{} ({})", kind.kind, kind.api_version()))
    }

    /// A watch that goes on silently where it broke shows that only by what comes from the API
    /// server afterwards.
    fn broken(&self, heard: u64) -> impl Iterator<Item = (Resource, &WatchTrouble)> {
        let lasting = move |trouble: &WatchTrouble| trouble.since >= heard;
        self.troubles
            .iter()
            .filter(move |(_, it)| lasting(it))
            .map(|(resource, it)| (*resource, it))
    }
}

/// The time that outlives a boot: what was written down may be older than that. For people only.
#[allow(clippy::disallowed_methods)]
pub(super) fn unix_now() -> SystemTime {
    SystemTime::now()
}

/// Seconds of Unix time.
pub(super) fn unix(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}
