//! The upstreams that do not answer, for the log and `namegate status`. The proxy itself decides
//! which upstream it asks first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clock::Time;
use dns_proxy::Transport;
use parking_lot::Mutex;
use tracing::{info, warn};

/// The silent upstreams, and since when each is silent.
#[derive(Debug, Default)]
pub(super) struct SilentUpstreams(Mutex<BTreeMap<(SocketAddr, Transport), Time>>);

impl SilentUpstreams {
    /// Records and logs that an upstream has fallen silent or answers again.
    pub(super) fn note(&self, now: Time, (server, transport): (SocketAddr, Transport), answers: bool) {
        match answers {
            false => {
                warn!(upstream = %server, ?transport, "an upstream does not answer; others are asked before it until it does");
                self.0.lock().insert((server, transport), now);
            }
            true => {
                let since = self.0.lock().remove(&(server, transport));
                let silent_for = since.map_or(Duration::ZERO, |since| now.since(since));
                info!(upstream = %server, ?transport, ?silent_for, "an upstream answers again");
            }
        }
    }

    pub(super) fn all(&self) -> Vec<((SocketAddr, Transport), Time)> {
        self.0.lock().iter().map(|(route, since)| (*route, *since)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_told_until_it_answers() {
        let silent = SilentUpstreams::default();
        let server = ("192.0.2.53:53".parse().unwrap(), Transport::Udp);
        let then = Time::from_millis(7_000);
        silent.note(then, server, false);
        assert_eq!(silent.all(), [(server, then)]);
        silent.note(Time::from_millis(9_000), server, true);
        assert!(silent.all().is_empty());
    }
}
