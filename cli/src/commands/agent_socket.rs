//! Which running agent a verb asks.

use std::path::PathBuf;

use api::ApiClient;
use settings::{DEFAULT_RUN_DIR, RUN_DIR_VARIABLE};

/// The directory with the socket of the agent that is asked.
#[derive(Debug, clap::Args)]
pub(super) struct AgentSocket {
    /// The agent's --run-dir
    #[arg(long, value_name = "DIR", env = RUN_DIR_VARIABLE, hide_env_values = true, default_value = DEFAULT_RUN_DIR)]
    pub(super) run_dir: PathBuf,
}

impl AgentSocket {
    /// A client of that agent.
    pub(super) fn client(&self) -> ApiClient {
        ApiClient::new(&self.run_dir)
    }
}
