//! One module for each verb of `namegate`.

pub mod agent;
pub mod check;
pub mod cleanup;
pub mod crds;
pub mod doctor;
pub mod drops;
pub mod explain;
pub mod names;
pub mod status;

mod reload;
mod table;

use std::io;

use clap::ValueEnum;
use serde::Serialize;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// A value as the JSON that `-o json` prints.
fn to_json(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A runtime for whoever asks the agent one thing.
pub(crate) fn ask<T>(question: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question))
}
