//! One module for each verb of `namegate`.

pub(crate) mod agent;
pub(crate) mod check;
pub(crate) mod cleanup;
pub(crate) mod completion;
pub(crate) mod crds;
pub(crate) mod doctor;
pub(crate) mod drops;
pub(crate) mod explain;
pub(crate) mod man;
pub(crate) mod names;
pub(crate) mod observe;
pub(crate) mod prepared_agent;
pub(crate) mod status;
pub(crate) mod suggest;

mod agent_socket;
mod reload;
mod table;

use std::io;

use clap::ValueEnum;
use serde::Serialize;

/// The values of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A table, for people.
    Table,
    /// JSON, for programs.
    Json,
}

/// Formats a value as `-o json` prints it.
fn to_json(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
