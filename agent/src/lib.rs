//! The agent of a node: settings and a source of objects in, a kernel and a resolver in step with
//! them out.
//!
//! - [`app`]: from settings and a source to something that runs; [`handles`] is what its tasks
//!   share.
//! - [`planner`] → [`reconcile`]: everything that is to be in force (pure), and the loop that puts
//!   it there; [`reconciler_part`]: what it does while the agent ends.
//! - [`gate`]: what the proxy asks at each lookup, answered from the plan in force;
//!   [`log_throttle`] keeps lookups from filling the log.
//! - [`judge`]: what the L7 proxy asks of each connection that is looked into; `inspector` starts
//!   that proxy, and [`local_authority`] has certificates for TLS that ends there.
//! - `policy_log`: how policies were read and whom they select, in the log.
//! - `news`: the same of policies and of the agent, as events; [`event_rows`] and `event_stream`
//!   show events.
//! - [`address_owners`]: which addresses have gone from one pod to another.
//! - [`records`]: packets that policy refused, or would have refused, with pod, name and policy.
//! - `flow_watch`: flows that are allowed, while somebody watches.
//! - [`revocation`]: flows that policies do not allow any more are cut.
//! - [`explain`]: why a pod may reach a destination, or why not; [`suggestion`]: the policy for
//!   what it was seen to do.
//! - [`run_dir`]: that one agent at a time serves a run directory.
//! - [`ledger_file`]: the ledger on disk; [`cleanup`]: what an agent leaves behind on purpose.
//! - `rule_use`: which rules somebody has needed.
//! - [`inspect`], [`view`]: what the running agent shows of itself; [`metrics`], [`http`],
//!   [`local_api`] and `web_pages` serve it.

pub mod address_owners;
pub mod app;
pub mod cleanup;
pub mod event_rows;
mod event_stream;
pub mod explain;
mod flow_watch;
pub mod gate;
pub mod handles;
pub mod http;
pub mod hubble_server;
pub mod inspect;
mod inspector;
pub mod judge;
pub mod ledger_file;
mod live_flows;
pub mod local_api;
pub mod local_authority;
pub mod local_socket;
pub mod log_throttle;
mod masked_peers;
pub mod metrics;
mod news;
mod policy_log;
pub mod reconcile;
pub mod reconciler_part;
pub mod records;
pub mod revocation;
mod rule_use;
pub mod run_dir;
#[cfg(test)]
mod samples;
pub mod suggestion;
pub mod view;
mod web_pages;
