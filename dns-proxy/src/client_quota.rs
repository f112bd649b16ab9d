//! How many lookups or connections one client, and all of them together, may have at once.

use std::net::IpAddr;
use std::sync::Arc;

use ahash::HashMap;
use parking_lot::Mutex;

use crate::event::DiscardReason;

/// A number of places, of which one client gets at most as many as are still free. So one client
/// alone can have half of them, two a third each, and a new client always finds as many free places
/// as the greediest has taken.
#[derive(Debug)]
pub(crate) struct ClientQuota {
    per_client: usize,
    total: usize,
    taken: Mutex<QuotaUsage>,
}

#[derive(Debug, Default)]
struct QuotaUsage {
    total: usize,
    /// Holds only clients that have something.
    by_client: HashMap<IpAddr, usize>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct QuotaPermit {
    quota: Arc<ClientQuota>,
    client: IpAddr,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaExceeded {
    Client,
    Total,
}

impl ClientQuota {
    pub(crate) fn new(per_client: usize, total: usize) -> Arc<Self> {
        Arc::new(Self {
            per_client,
            total,
            taken: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Result<QuotaPermit, QuotaExceeded> {
        let mut taken = self.taken.lock();
        let free = self.total.saturating_sub(taken.total);
        if free == 0 {
            return Err(QuotaExceeded::Total);
        }
        let of_client = taken.by_client.entry(client).or_default();
        if *of_client >= self.per_client.min(free) {
            // With a limit of 0 the entry is new: leave none behind.
            if *of_client == 0 {
                taken.by_client.remove(&client);
            }
            return Err(QuotaExceeded::Client);
        }
        *of_client += 1;
        taken.total += 1;
        Ok(QuotaPermit {
            quota: self.clone(),
            client,
        })
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().total
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.lock();
        taken.total = taken.total.saturating_sub(1);
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

impl From<QuotaExceeded> for DiscardReason {
    fn from(full: QuotaExceeded) -> Self {
        match full {
            QuotaExceeded::Client => Self::ClientLimit,
            QuotaExceeded::Total => Self::TotalLimit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const ANOTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_client_at_its_limit_leaves_room_for_another() {
        let quota = ClientQuota::new(2, 3);
        let held = [quota.take(ONE).unwrap(), quota.take(ONE).unwrap()];
        assert_eq!(quota.take(ONE).unwrap_err(), QuotaExceeded::Client);
        let other = quota.take(ANOTHER).unwrap();
        assert_eq!(quota.take(ANOTHER).unwrap_err(), QuotaExceeded::Total);
        drop((held, other));
        assert_eq!(quota.taken(), 0);
        assert!(
            quota.taken.lock().by_client.is_empty(),
            "clients without places are forgotten"
        );
    }

    #[test]
    fn the_greediest_leave_as_much_free_as_they_have() {
        let quota = ClientQuota::new(usize::MAX, 12);
        let takes = |client| std::iter::from_fn(|| quota.take(client).ok()).collect::<Vec<_>>();
        let one = takes(ONE);
        assert_eq!(one.len(), 6);
        let another = takes(ANOTHER);
        assert_eq!(another.len(), 3);
        assert_eq!(quota.take(ONE).unwrap_err(), QuotaExceeded::Client);
        drop(one);
        assert_eq!(takes(ONE).len(), 5);
    }

    #[test]
    fn a_limit_of_zero_admits_nobody_and_remembers_nobody() {
        let quota = ClientQuota::new(0, 10);
        assert_eq!(quota.take(ONE).unwrap_err(), QuotaExceeded::Client);
        assert!(quota.taken.lock().by_client.is_empty());
    }
}
