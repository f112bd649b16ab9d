//! One lookup in the log: a line for each step, with the same `endpoint` and `name`, and with the
//! `policy` that the step follows from.
//!
//! Their target is `lookup`, so that `RUST_LOG=info,lookup=trace` shows them and nothing else. What
//! goes wrong is DEBUG, the rest TRACE. As long as they are off, a step costs one comparison:
//! nothing is looked up, formatted or allocated.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dns_proxy::{Rcode, ValidatedAnswer};
use names::Name;
use tracing::{Level, debug, enabled, trace};

use planner::{Governed, Plan};

use super::ClientIdentity;

const TARGET: &str = "lookup";

/// Whether steps are logged at all. To be asked where what a line says would have to be made first.
pub(super) fn is_on() -> bool {
    enabled!(target: TARGET, Level::DEBUG)
}

/// The client in a line: the endpoint, or the address of somebody who is none.
struct LoggedClient<'a>(Option<&'a Governed>, Option<IpAddr>);

impl fmt::Display for LoggedClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(Some(governed), _) => governed.id.fmt(f),
            Self(None, Some(address)) => address.fmt(f),
            Self(None, None) => f.write_str("the answer cache"),
        }
    }
}

impl<'a> From<&'a ClientIdentity> for LoggedClient<'a> {
    fn from(identity: &'a ClientIdentity) -> Self {
        match identity {
            ClientIdentity::Endpoint(governed, _) | ClientIdentity::Coming(governed, ..) => Self(Some(governed), None),
            ClientIdentity::Other(address) => Self(None, Some(*address)),
        }
    }
}

/// The policies that select the endpoint: of these the ones that speak of the name, or all where
/// none does.
pub(super) fn policies(plan: &Plan, governed: Option<&Governed>, name: &Name) -> Vec<String> {
    let Some(governed) = governed else {
        return Vec::new();
    };
    let endpoint = governed.id.to_string();
    let row = plan.endpoints.iter().find(|row| row.endpoint == endpoint);
    let selecting = row.map(|row| row.policies.as_slice()).unwrap_or_default();
    let (_, speaking) = plan.attribution(name);
    let speaking: Vec<String> = speaking.into_iter().map(ToString::to_string).collect();
    let both: Vec<String> = selecting
        .iter()
        .filter(|policy| speaking.contains(policy))
        .cloned()
        .collect();
    match both.is_empty() {
        true => selecting.to_vec(),
        false => both,
    }
}

/// The governed pod with this address.
fn governed(plan: &Plan, client: Option<IpAddr>) -> Option<&Governed> {
    client
        .and_then(|client| plan.governed.get(&client))
        .map(|governed| &**governed)
}

/// The question may not be asked. To be called when [`is_on`] says so.
#[cold]
pub(super) fn refused(plan: &Plan, source: IpAddr, resolver: SocketAddr, name: &Name, (rcode, why): (Rcode, &str)) {
    let governed = governed(plan, Some(source));
    let policy = policies(plan, governed, name).join(", ");
    let endpoint = LoggedClient(governed, Some(source));
    debug!(target: TARGET, %endpoint, %name, policy, %resolver, ?rcode, why, "a lookup is refused");
}

/// The question may be asked.
pub(super) fn allowed(plan: &Plan, source: IpAddr, resolver: SocketAddr, name: &Name) {
    if enabled!(target: TARGET, Level::TRACE) {
        let governed = governed(plan, Some(source));
        let policy = policies(plan, governed, name).join(", ");
        let endpoint = LoggedClient(governed, Some(source));
        trace!(target: TARGET, %endpoint, %name, policy, %resolver, "a lookup is allowed");
    }
}

/// No upstream had an answer.
pub(super) fn unanswered(plan: &Plan, source: IpAddr, name: &Name, why: fmt::Arguments<'_>) {
    if is_on() {
        let endpoint = LoggedClient(governed(plan, Some(source)), Some(source));
        debug!(target: TARGET, %endpoint, %name, why, "a lookup has no answer");
    }
}

/// The answer may be released. `because` says what has shown it.
pub(super) fn admitted(identity: &ClientIdentity, validated: &ValidatedAnswer, because: &str) {
    answer(identity, validated, format_args!("is released: {because}"));
}

/// The answer waits.
pub(super) fn waits(identity: &ClientIdentity, validated: &ValidatedAnswer, for_what: &str) {
    answer(identity, validated, format_args!("waits for {for_what}"));
}

/// What becomes of an answer that was found to be believed.
fn answer(identity: &ClientIdentity, validated: &ValidatedAnswer, step: fmt::Arguments<'_>) {
    trace!(
        target: TARGET,
        endpoint = %LoggedClient::from(identity),
        name = %validated.name,
        upstream = %validated.source,
        addresses = ?Addresses(validated),
        "an answer {step}"
    );
}

/// The answer is not released.
pub(super) fn withheld(plan: &Plan, client: Option<IpAddr>, (name, upstream): (&Name, SocketAddr), why: &str) {
    if is_on() {
        let governed = governed(plan, client);
        let policy = policies(plan, governed, name).join(", ");
        let endpoint = LoggedClient(governed, client);
        debug!(target: TARGET, %endpoint, %name, policy, %upstream, why, "an answer is withheld");
    }
}

struct Addresses<'a>(&'a ValidatedAnswer);

impl fmt::Debug for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.addresses.iter().map(|(address, _)| address))
            .finish()
    }
}
