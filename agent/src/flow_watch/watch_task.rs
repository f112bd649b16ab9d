//! The task that subscribes to flows while somebody watches them.

use std::fs;
use std::io;
use std::time::Duration;

use clock::{Time, WallTime};
use enforcer::conntrack::{ConntrackListener, ConntrackNews};
use enforcer::revocation::Flow;
use events::{AgentEvent, EventKind, EventSource};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::handles::AgentHandles;
use crate::news;

use super::flow_tracker::FlowTracker;

/// How often it is looked whether the listener still runs, and tried again where the kernel does
/// not let it.
const PAUSE: Duration = Duration::from_secs(1);

/// Below `/proc/sys/net` of a network namespace: whether the kernel counts what flows carry.
const COUNTS: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// Watches the flows of the network namespace of the calling thread while the log of events is
/// watched for them, until it is dropped.
pub(crate) async fn watch_flows(handles: AgentHandles) {
    let (sender, mut is_watched) = watch::channel(false);
    handles.events.on_watch(move |kind, is_watched| {
        if kind == EventKind::Flow {
            sender.send_replace(is_watched);
        }
    });
    let mut said = None;
    while is_watched.wait_for(|is_watched| *is_watched).await.is_ok() {
        match subscribe(&handles) {
            Ok(listener) => {
                debug!("somebody watches flows");
                said = None;
                tell_if_uncounted(&handles);
                loop {
                    let ended = timeout(PAUSE, is_watched.wait_for(|is_watched| !*is_watched)).await;
                    if ended.is_ok() || listener.has_ended() {
                        break;
                    }
                }
            }
            Err(error) => {
                let failure = format!("{error}; does this kernel have the module nf_conntrack_netlink?");
                if said.as_ref() != Some(&failure) {
                    warn!(%failure, "flows cannot be watched; trying again each second");
                    tell(&handles, AgentEvent::NotWatching(failure.clone()));
                    said = Some(failure);
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn subscribe(handles: &AgentHandles) -> io::Result<ConntrackListener> {
    let answers = handles.recorder.answer_log();
    let records_audited = handles.settings.records_group.is_some();
    let mut tracker = FlowTracker::new(handles.events.clone(), answers, records_audited);
    let handles = handles.clone();
    ConntrackListener::subscribe(move |heard| match heard {
        ConntrackNews::Began(entry) => {
            let in_force = handles.gate.in_force();
            tracker.began(Flow::of(&entry), entry.reply_destination, &in_force.plan, moment());
        }
        ConntrackNews::Ended(entry) => {
            tracker.ended(Flow::of(&entry), entry.counted, moment());
        }
        ConntrackNews::Overrun => tell(&handles, AgentEvent::FlowsLost),
    })
}

fn moment() -> (Time, WallTime) {
    (clock::now(), clock::wall_now())
}

/// The sysctl is the owner's, so it is said and not changed.
fn tell_if_uncounted(handles: &AgentHandles) {
    if fs::read_to_string(COUNTS).is_ok_and(|value| value.trim() == "0") {
        tell(handles, AgentEvent::FlowsNotCounted);
    }
}

fn tell(handles: &AgentHandles, what: AgentEvent) {
    handles.events.record(EventSource::Node, news::of_agent(what));
}
