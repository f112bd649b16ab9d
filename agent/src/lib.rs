//! The `namegate` binary as a library, so that `integration` can compose it.
//!
//! Settings and objects in, a kernel and a resolver in step with them out:
//!
//! - [`config`], [`cli`], [`commands`]: flags and the config file → [`Settings`](config::Settings);
//!   the verbs.
//! - [`app`]: the agent itself, from settings and a source to something that runs; [`parts`] is
//!   what its tasks share.
//! - [`objects`] → [`cluster`] → [`plan`] → [`reconcile`]: where objects come from, their index,
//!   everything that is to be in force (pure), and the loop that puts it there.
//! - [`status`]: what became of policies, written into them.
//! - [`gate`]: what the proxy asks at each lookup, answered from the plan in force; [`throttle`]
//!   keeps lookups from filling the log.
//! - [`owners`]: which addresses have gone from one pod to another.
//! - [`taint`]: what holds Pods back from a node until its agent is ready.
//! - [`records`]: packets that policy refused, or would have refused, with pod, name and policy.
//! - [`explain`]: why a pod may reach a destination, or why not.
//! - [`run_dir`]: that one agent at a time serves a run directory.
//! - [`state`], [`clock`], [`working_set`]: the ledger on disk, the one clock, and memory that only
//!   the start needed.
//! - [`supervisor`]: sockets that outlive a crash, and the agent started again.
//! - [`log`]: the log on stderr, which says nothing again and again.
//! - [`inspect`], [`view`]: what the running agent shows of itself; [`metrics`], [`http`] and
//!   [`api`] serve it.
//! - [`doctor`]: what a node needs for all this, and whether it is so.
//! - [`netns`], [`exec`]: network namespaces; any command in one that reaches only allowed names.
//! - [`lab`], [`demo`]: pods, a node, a resolver and an internet in namespaces, and the agent shown
//!   in them.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod exec;
pub mod explain;
pub mod gate;
pub mod http;
pub mod inspect;
pub mod lab;
pub mod log;
pub mod metrics;
pub mod netns;
pub mod objects;
pub mod owners;
pub mod parts;
pub mod plan;
pub mod reconcile;
pub mod records;
pub mod run_dir;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod taint;
pub mod throttle;
pub mod view;
pub mod working_set;
