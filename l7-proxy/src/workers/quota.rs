//! How many connections there may be: of one pod, and of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clock::Time;

use crate::limits::PassageLimits;
use crate::refusal::Refusal;

/// Counts connections. One lock for each connection that comes or goes.
pub(super) struct ConnectionQuota {
    limits: PassageLimits,
    open: Arc<AtomicUsize>,
    of_pods: Mutex<HashMap<IpAddr, PodShare>>,
}

struct PodShare {
    open: usize,
    /// How many the pod may open at once while it has more than half of what it may have.
    tokens: u32,
    filled: Time,
}

/// One connection's part, given back when it is dropped.
pub(super) struct QuotaShare {
    quota: Arc<ConnectionQuota>,
    source: IpAddr,
}

impl ConnectionQuota {
    pub(super) fn new(limits: PassageLimits) -> Self {
        Self {
            limits,
            open: Arc::default(),
            of_pods: Mutex::default(),
        }
    }

    pub(super) fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }

    /// Takes a connection of `source` into account, or says why it is one too many.
    pub(super) fn take(quota: &Arc<Self>, source: IpAddr, now: Time) -> Result<QuotaShare, Refusal> {
        let limits = &quota.limits;
        if quota.open.load(Ordering::Relaxed) >= limits.connections {
            return Err(Refusal::NodeLimit);
        }
        let mut of_pods = quota.pods();
        let pod = of_pods.entry(source).or_insert(PodShare {
            open: 0,
            tokens: limits.connection_burst,
            filled: now,
        });
        if pod.open >= limits.connections_of_a_pod {
            return Err(Refusal::PodLimit);
        }
        pod.fill(limits, now);
        if pod.open > limits.connections_of_a_pod / 2 {
            pod.tokens = pod.tokens.checked_sub(1).ok_or(Refusal::PodRate)?;
        }
        pod.open += 1;
        drop(of_pods);
        quota.open.fetch_add(1, Ordering::Relaxed);
        Ok(QuotaShare {
            quota: Arc::clone(quota),
            source,
        })
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<IpAddr, PodShare>> {
        // Counts are whole between any two statements.
        self.of_pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodShare {
    fn fill(&mut self, limits: &PassageLimits, now: Time) {
        let millis = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(u64::from(limits.connections_per_second)) / 1000;
        if earned > 0 {
            self.filled = now;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(limits.connection_burst);
        }
    }
}

impl Drop for QuotaShare {
    fn drop(&mut self) {
        self.quota.open.fetch_sub(1, Ordering::Relaxed);
        let mut of_pods = self.quota.pods();
        if let Some(pod) = of_pods.get_mut(&self.source) {
            pod.open -= 1;
            if pod.open == 0 {
                of_pods.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn quota(limits: PassageLimits) -> Arc<ConnectionQuota> {
        Arc::new(ConnectionQuota::new(limits))
    }

    fn pod(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_pod_and_the_node_have_limits_of_their_own() {
        let quota = quota(PassageLimits {
            connections_of_a_pod: 2,
            connections: 3,
            ..PassageLimits::default()
        });
        let take = |last| ConnectionQuota::take(&quota, pod(last), Time::default());
        let (first, _second) = (take(1).unwrap(), take(1).unwrap());
        assert_eq!(take(1).err(), Some(Refusal::PodLimit));
        let _other = take(2).unwrap();
        assert_eq!(take(2).err(), Some(Refusal::NodeLimit));
        drop(first);
        assert!(take(1).is_ok());
    }

    #[test]
    fn over_half_of_it_a_pod_is_slowed_down() {
        let quota = quota(PassageLimits {
            connections_of_a_pod: 10,
            connections_per_second: 1,
            connection_burst: 2,
            ..PassageLimits::default()
        });
        let begin = Time::from_millis(1000);
        let take = |now| ConnectionQuota::take(&quota, pod(1), now);
        let _half: Vec<_> = (0..6).map(|_| take(begin).unwrap()).collect();
        let _burst: Vec<_> = (0..2).map(|_| take(begin).unwrap()).collect();
        assert_eq!(take(begin).err(), Some(Refusal::PodRate));
        assert!(take(begin + Duration::from_secs(1)).is_ok());
    }
}
