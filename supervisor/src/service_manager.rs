//! What the service manager is told (sd_notify(3)): systemd with `Type=notify`.
//!
//! Without a service manager that wants to know, nothing happens.

use sd_notify::{NotifyState, notify};
use tracing::debug;

/// The variable that says where the service manager listens.
pub(crate) const ENVIRONMENT: &str = "NOTIFY_SOCKET";

/// The agent answers lookups, and policies are in force.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("policies are in force")]);
}

/// The agent was told to end.
pub fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping; the ruleset stays in force"),
    ]);
}

fn tell(state: &[NotifyState<'_>]) {
    // The service goes on without it, and the service manager says what it misses.
    if let Err(error) = notify(state) {
        debug!(%error, "the service manager cannot be told");
    }
}
