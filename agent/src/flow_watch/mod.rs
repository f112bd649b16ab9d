//! Flows that are allowed, as they begin and end, while somebody watches.
//!
//! The kernel tells of them ([`enforcer::conntrack::ConntrackListener`]); here they become events.
//! Nobody pays for it unless somebody reads events of flows: the subscription is made with the
//! first such reader, and ends with the last ([`watch_flows`]).

mod flow_tracker;
mod watch_task;

pub(crate) use watch_task::watch_flows;
