//! The `namegate` binary as a library, so that `integration` can compose it.
//!
//! - [`config`], [`cli`]: flags and the config file → [`Settings`](config::Settings); the verbs.
//! - [`app`]: the agent itself, from settings and a source to something that runs.
//! - [`objects`]: where Kubernetes objects come from (a directory; later an API server).
//! - [`inspect`]: what the running agent shows of itself; [`metrics`], [`http`] and [`api`] serve it.
//! - [`netns`]: network namespaces, for `exec`, the demo and the lab.
//! - [`exec`]: any command, in a network that reaches only allowed names.
//! - [`lab`]: pods, a node, a resolver and an internet in namespaces; [`demo`] shows the agent in it.

pub mod api;
pub mod app;
pub mod clock;
pub mod cluster;
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod gate;
pub mod http;
pub mod exec;
pub mod inspect;
pub mod lab;
pub mod metrics;
pub mod netns;
pub mod objects;
pub mod plan;
pub mod reconcile;
pub mod state;
pub mod view;
