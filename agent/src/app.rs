//! The agent itself: settings and a source of objects in, something that runs out.

use thiserror::Error;

use crate::config::Settings;
use crate::objects::Source;

/// Why the agent could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel side.
    #[error(transparent)]
    Install(#[from] enforcer::InstallError),
    /// A DNS listener.
    #[error(transparent)]
    Listen(#[from] dns_proxy::ServerError),
    /// Anything else at the rim; the text says what to do.
    #[error("{0}")]
    Other(String),
}

/// A running agent. Dropping it stops it, as a crash would; [`stop`](Agent::stop) ends it cleanly.
#[derive(Debug)]
pub struct Agent {}

impl Agent {
    /// Starts in the network namespace of the calling thread, which must be the one that runs the
    /// current-thread runtime, or whose namespace all runtime threads share.
    pub async fn start(settings: Settings, source: impl Source) -> Result<Self, StartError> {
        let _ = (settings, source);
        todo!()
    }

    /// Resolves once the first ruleset is in the kernel and every listener is bound.
    pub async fn ready(&self) -> Result<(), StartError> {
        todo!()
    }

    /// Ends it: lookups fall through at once in fail-mode open, enforcement stays in the kernel.
    pub async fn stop(self) {
        todo!()
    }
}
