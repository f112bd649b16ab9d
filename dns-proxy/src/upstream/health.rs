//! Which upstreams answer. A silent upstream is not asked first, and is probed with a question of
//! our own.
//!
//! Health decides the order alone: every lookup still asks all its upstreams before it fails. So a
//! client that causes failures (with names whose servers are dead) costs others nothing.
//!
//! Each transport is judged by itself: a server may be alive over UDP and dead over TCP, or the
//! other way round.
//!
//! Pure: time is an argument. While all upstreams answer, a lookup reads one counter.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::{Duration, Instant};

use crate::question::Transport;
use parking_lot::Mutex;

/// After so many questions in a row without an answer, an upstream counts as silent.
const FAILURES: u32 = 3;

/// How long after falling silent an upstream is probed; each failed probe doubles the pause, up to
/// the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How many failing upstreams are remembered. Those that answer take no memory.
const REMEMBERED: usize = 256;

/// The failing upstreams, shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct UpstreamHealth {
    /// How many are in `failing`.
    count: AtomicUsize,
    failing: Mutex<Vec<FailingUpstream>>,
}

/// An upstream's address, and how it is asked.
pub(crate) type UpstreamRoute = (SocketAddr, Transport);

/// An upstream that has not answered its last question.
#[derive(Debug)]
struct FailingUpstream {
    route: UpstreamRoute,
    failures: u32,
    /// Once it counts as silent: when it is probed next, and the pause after that.
    silent: Option<(Instant, Duration)>,
}

/// An upstream has fallen silent, or answers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthChange {
    Silent,
    Answers,
}

impl UpstreamHealth {
    /// Notes any answer, errors included.
    pub(crate) fn answered(&self, route: UpstreamRoute) -> Option<HealthChange> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut failing = self.failing.lock();
        let index = failing.iter().position(|it| it.route == route)?;
        let was_silent = failing.swap_remove(index).silent.is_some();
        self.count.store(failing.len(), Ordering::Relaxed);
        was_silent.then_some(HealthChange::Answers)
    }

    /// Notes that it has not answered in time, or cannot be reached.
    pub(crate) fn failed(&self, now: Instant, route: UpstreamRoute) -> Option<HealthChange> {
        let mut failing = self.failing.lock();
        let index = failing.iter().position(|it| it.route == route);
        let index = match index {
            Some(index) => index,
            None if failing.len() < REMEMBERED => {
                failing.push(FailingUpstream {
                    route,
                    failures: 0,
                    silent: None,
                });
                self.count.store(failing.len(), Ordering::Relaxed);
                failing.len() - 1
            }
            None => return None,
        };
        let it = &mut failing[index];
        it.failures = it.failures.saturating_add(1);
        if it.failures < FAILURES || it.silent.is_some() {
            return None;
        }
        it.silent = Some((now + FIRST_PAUSE, FIRST_PAUSE));
        Some(HealthChange::Silent)
    }

    /// The index of the upstream to ask first: the first that is not silent over its transport, or
    /// 0 if all are silent.
    pub(crate) fn first(&self, upstreams: &[SocketAddr], transport: impl Fn(SocketAddr) -> Transport) -> usize {
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let failing = self.failing.lock();
        let is_silent = |server: &SocketAddr| {
            let route = (*server, transport(*server));
            failing.iter().any(|it| it.route == route && it.silent.is_some())
        };
        upstreams.iter().position(|it| !is_silent(it)).unwrap_or(0)
    }

    /// A silent one of these that is due for a probe. It is not returned again before its pause is
    /// over.
    pub(crate) fn to_be_tried(&self, now: Instant, upstreams: &[SocketAddr]) -> Option<UpstreamRoute> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut failing = self.failing.lock();
        let due = failing
            .iter_mut()
            .filter(|it| upstreams.contains(&it.route.0))
            .find_map(|it| Some((it.route, it.silent.as_mut().filter(|(next, _)| now >= *next)?)));
        let (route, (next, pause)) = due?;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        *next = now + *pause;
        Some(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> [SocketAddr; 2] {
        ["192.0.2.1:53", "192.0.2.2:53"].map(|it| it.parse().unwrap())
    }

    fn udp(server: SocketAddr) -> UpstreamRoute {
        (server, Transport::Udp)
    }

    #[test]
    fn who_does_not_answer_over_tcp_is_asked_first_over_udp() {
        let (health, servers, now) = (UpstreamHealth::default(), servers(), Instant::now());
        let tcp = (servers[0], Transport::Tcp);
        for _ in 0..3 {
            health.failed(now, tcp);
            assert_eq!(health.answered(udp(servers[0])), None);
        }
        assert_eq!(health.first(&servers, |_| Transport::Udp), 0);
        assert_eq!(health.first(&servers, |_| Transport::Tcp), 1);
        assert_eq!(health.to_be_tried(now + FIRST_PAUSE, &servers), Some(tcp));
        assert_eq!(health.answered(tcp), Some(HealthChange::Answers));
        assert_eq!(health.first(&servers, |_| Transport::Tcp), 0);
    }

    #[test]
    fn who_leaves_three_questions_unanswered_is_asked_last_until_it_answers() {
        let (health, servers, now) = (UpstreamHealth::default(), servers(), Instant::now());
        assert_eq!(health.failed(now, udp(servers[0])), None);
        assert_eq!(health.failed(now, udp(servers[0])), None);
        assert_eq!(health.first(&servers, |_| Transport::Udp), 0);
        assert_eq!(health.failed(now, udp(servers[0])), Some(HealthChange::Silent));
        assert_eq!(health.failed(now, udp(servers[0])), None, "said once");
        assert_eq!(health.first(&servers, |_| Transport::Udp), 1);
        assert_eq!(health.answered(udp(servers[1])), None);
        assert_eq!(health.answered(udp(servers[0])), Some(HealthChange::Answers));
        assert_eq!(health.first(&servers, |_| Transport::Udp), 0);
    }

    #[test]
    fn an_answer_between_failures_shows_that_it_is_alive() {
        let (health, servers, now) = (UpstreamHealth::default(), servers(), Instant::now());
        for _ in 0..10 {
            assert_eq!(health.failed(now, udp(servers[0])), None);
            assert_eq!(health.failed(now, udp(servers[0])), None);
            assert_eq!(health.answered(udp(servers[0])), None);
        }
    }

    #[test]
    fn when_all_are_silent_the_order_is_as_written() {
        let (health, servers, now) = (UpstreamHealth::default(), servers(), Instant::now());
        for server in servers {
            (0..3).for_each(|_| _ = health.failed(now, udp(server)));
        }
        assert_eq!(health.first(&servers, |_| Transport::Udp), 0);
    }

    #[test]
    fn a_silent_upstream_is_tried_again_ever_more_seldom_but_once_a_minute() {
        let (health, servers, start) = (UpstreamHealth::default(), servers(), Instant::now());
        (0..3).for_each(|_| _ = health.failed(start, udp(servers[0])));
        let mut tries = Vec::new();
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            if let Some(server) = health.to_be_tried(now, &servers) {
                assert_eq!(server, udp(servers[0]));
                assert_eq!(health.to_be_tried(now, &servers), None);
                tries.push(second);
            }
        }
        assert_eq!(tries, [1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert_eq!(
            health.to_be_tried(start + Duration::from_secs(999), &servers[1..]),
            None
        );
    }
}
