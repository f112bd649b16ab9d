//! Kept TCP connections to upstreams, on which lookups are pipelined (RFC 7766 §6.2).
//!
//! A connection for each lookup would leave its port in TIME_WAIT for a minute, until no port is
//! left. So there are a few connections to each upstream, opened when needed and closed when idle.
//! Each client has a share of the places and of the connections, since an upstream that answers in
//! order delays whatever is queued behind a slow question.
//!
//! The seam for other transports is [`ConnectionPool::exchange`]: the bytes of a query go in, those
//! of its answer come out, until a deadline.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use super::UpstreamFailure;
use super::connection::{ConnectionLost, UpstreamConnection};
use super::encrypted::{EncryptedEndpoint, EncryptedUpstream, EncryptedUpstreams};
use super::exchange::UpstreamExchange;
use crate::client_query::Query;
use crate::question::Transport;

/// Connections to one upstream.
const CONNECTIONS: usize = 8;

/// Of these, those that one client's lookups go on.
const CONNECTIONS_PER_CLIENT: usize = 2;

/// Lookups in flight to one upstream, all clients together.
const PLACES: usize = 256;

/// Lookups of one client in flight to one upstream; more wait for these.
const PLACES_PER_CLIENT: usize = 32;

/// Lookups of one client that wait or are in flight to one upstream; more fail at once.
const QUEUE_PER_CLIENT: usize = 1_024;

/// Upstreams beyond which those that nobody uses are forgotten.
const REMEMBERED: usize = 64;

/// How often a lookup goes on another connection, because the one that it was on was closed before
/// it was answered.
const RETRIES: usize = 2;

/// The connections to all upstreams, of all workers. Dropped, it closes them.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    /// Those that are asked otherwise than over plain TCP.
    encrypted: EncryptedUpstreams,
    upstreams: Mutex<HashMap<SocketAddr, Arc<PooledUpstream>, RandomState>>,
}

#[derive(Debug)]
struct PooledUpstream {
    server: SocketAddr,
    encrypted: Option<Arc<EncryptedEndpoint>>,
    open: Mutex<Vec<PooledConnection>>,
    places: Semaphore,
    /// Holds only clients with lookups here.
    shares: Mutex<HashMap<IpAddr, ClientShare, RandomState>>,
}

#[derive(Debug)]
struct PooledConnection {
    connection: Arc<UpstreamConnection>,
    task: AbortHandle,
}

#[derive(Debug)]
struct ClientShare {
    places: Arc<Semaphore>,
    lookups: usize,
}

/// A lookup's part in the share of its client.
struct QueuedLookup<'a> {
    upstream: &'a PooledUpstream,
    client: IpAddr,
    places: Arc<Semaphore>,
}

impl ConnectionPool {
    /// Without any connection yet. At the addresses of `encrypted` upstreams nobody is ever asked
    /// in plain.
    pub(crate) fn new(encrypted: &[EncryptedUpstream]) -> Self {
        Self {
            encrypted: EncryptedUpstreams::new(encrypted),
            upstreams: Mutex::default(),
        }
    }

    /// Asks `server` on behalf of `client`, under an id of its own, until `until`.
    pub(crate) async fn exchange(
        &self,
        server: SocketAddr,
        client: IpAddr,
        query: &Query<'_>,
        until: Instant,
    ) -> UpstreamExchange {
        let began = Instant::now();
        let upstream = self.upstream(server);
        let mut mismatched = 0;
        let answer = match timeout_at(until.into(), upstream.ask(client, query, until, &mut mismatched)).await {
            Ok(answer) => answer,
            Err(_) => Err(UpstreamFailure::TimedOut { server }),
        };
        let transport = upstream.encrypted.as_ref().map_or(Transport::Tcp, |it| it.transport);
        UpstreamExchange {
            server,
            transport,
            answer,
            took: began.elapsed(),
            mismatched,
        }
    }

    fn upstream(&self, server: SocketAddr) -> Arc<PooledUpstream> {
        let mut upstreams = self.upstreams.lock();
        if !upstreams.contains_key(&server) && upstreams.len() >= REMEMBERED {
            upstreams
                .retain(|_, it| Arc::strong_count(it) > 1 || it.open.lock().iter().any(|it| it.connection.is_open()));
        }
        let upstream = upstreams
            .entry(server)
            .or_insert_with(|| Arc::new(PooledUpstream::new(server, self.encrypted.of(server))));
        Arc::clone(upstream)
    }
}

impl PooledUpstream {
    fn new(server: SocketAddr, encrypted: Option<Arc<EncryptedEndpoint>>) -> Self {
        Self {
            server,
            encrypted,
            open: Mutex::default(),
            places: Semaphore::new(PLACES),
            shares: Mutex::default(),
        }
    }

    async fn ask(
        &self,
        client: IpAddr,
        query: &Query<'_>,
        until: Instant,
        mismatched: &mut usize,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        let server = self.server;
        let queued = self.queue(client).ok_or(UpstreamFailure::Busy { server })?;
        // Neither is ever closed. First the client's own, so that none waits in the common queue
        // with more than its share.
        let _own = queued.places.acquire().await;
        let _place = self.places.acquire().await;
        if let Some(encrypted) = &self.encrypted {
            return encrypted.ask(query, until, mismatched).await;
        }
        let mut retries = 0..RETRIES;
        loop {
            let connection = self.connection(client);
            match connection.ask(client, query, until, mismatched).await {
                Ok(answer) => return Ok(answer),
                // Upstreams close what was idle for a while, perhaps while this was on its way (RFC
                // 7766 §6.2.4).
                Err(ConnectionLost { error, was_in_use }) if !was_in_use || retries.next().is_none() => {
                    return Err(UpstreamFailure::Unreachable { server, error });
                }
                Err(_) => {}
            }
        }
    }

    /// `None`: too many lookups of this client wait already.
    fn queue(&self, client: IpAddr) -> Option<QueuedLookup<'_>> {
        let mut shares = self.shares.lock();
        let share = shares.entry(client).or_insert_with(|| ClientShare {
            places: Arc::new(Semaphore::new(PLACES_PER_CLIENT)),
            lookups: 0,
        });
        if share.lookups >= QUEUE_PER_CLIENT {
            return None;
        }
        share.lookups += 1;
        Some(QueuedLookup {
            upstream: self,
            client,
            places: Arc::clone(&share.places),
        })
    }

    /// The connection for a client's next lookup: an idle one, a new one, or the one with the least
    /// to do; and no more than a few for one client.
    fn connection(&self, client: IpAddr) -> Arc<UpstreamConnection> {
        let mut open = self.open.lock();
        open.retain(|it| it.connection.is_open());
        let loads = open.iter().map(|it| it.connection.load(client));
        let loads: Vec<(usize, usize)> = loads.collect();
        let its_own = loads.iter().filter(|(_, of_client)| *of_client > 0).count();
        let may_spread = its_own < CONNECTIONS_PER_CLIENT;
        let candidates = loads
            .iter()
            .enumerate()
            .filter(|(_, (_, of_client))| may_spread || *of_client > 0);
        let best = candidates.min_by_key(|(_, (load, _))| *load);
        match best {
            Some((index, (load, _))) if *load == 0 || !may_spread || open.len() >= CONNECTIONS => {
                Arc::clone(&open[index].connection)
            }
            _ => {
                let connection = Arc::new(UpstreamConnection::new());
                let task = tokio::spawn(Arc::clone(&connection).run(self.server)).abort_handle();
                open.push(PooledConnection {
                    connection: Arc::clone(&connection),
                    task,
                });
                connection
            }
        }
    }
}

impl Drop for PooledUpstream {
    fn drop(&mut self) {
        self.open.lock().iter().for_each(|it| it.task.abort());
    }
}

impl Drop for QueuedLookup<'_> {
    fn drop(&mut self) {
        let mut shares = self.upstream.shares.lock();
        if let Some(share) = shares.get_mut(&self.client) {
            share.lookups -= 1;
            if share.lookups == 0 {
                shares.remove(&self.client);
            }
        }
    }
}
