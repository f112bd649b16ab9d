//! The proxy as a whole: listeners, worker threads, and what they are told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::mpsc;

use crate::config::L7ServerConfig;
use crate::judge::Judge;
use crate::workers::{Shared, Worker, WorkerOrder, listen};

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum L7ServerError {
    /// A listener cannot be bound.
    #[error(
        "cannot listen on {address} for connections to be inspected: {error}; is another agent, or a process in the host's network, there?"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread for inspected connections: {0}")]
    Thread(io::Error),
}

/// Listeners and threads that inspect connections. They end when this is dropped, and reset the
/// connections that are left.
pub struct L7Server {
    workers: Vec<RunningWorker>,
    addresses: Vec<SocketAddr>,
    open: Arc<AtomicUsize>,
}

struct RunningWorker {
    orders: mpsc::UnboundedSender<WorkerOrder>,
    thread: Option<thread::JoinHandle<()>>,
}

impl L7Server {
    /// Binds every listener, then starts the threads, in the network namespace of the caller.
    pub fn start<J: Judge>(judge: Arc<J>, config: L7ServerConfig) -> Result<Self, L7ServerError> {
        let mut addresses = Vec::new();
        let mut sockets: Vec<Vec<_>> = (0..config.workers.max(1)).map(|_| Vec::new()).collect();
        for wanted in &config.addresses {
            // The first takes a free port where none was asked for, and the others share it.
            let mut address = *wanted;
            for of_worker in &mut sockets {
                let listener = listen(address)
                    .and_then(|listener| Ok((listener.local_addr()?, listener)))
                    .map_err(|error| L7ServerError::Listen { address, error })?;
                address = listener.0;
                of_worker.push(listener.1);
            }
            addresses.push(address);
        }
        let shared = Arc::new(Shared::new(judge, &config, addresses.clone()));
        let open = shared.open();
        let mut workers = Vec::new();
        for (number, listeners) in sockets.into_iter().enumerate() {
            let (orders, received) = mpsc::unbounded_channel();
            let worker = Worker::new(Arc::clone(&shared), listeners);
            let thread = thread::Builder::new()
                .name(format!("l7-{number}"))
                .spawn(move || worker.run(received))
                .map_err(L7ServerError::Thread)?;
            workers.push(RunningWorker {
                orders,
                thread: Some(thread),
            });
        }
        Ok(Self {
            workers,
            addresses,
            open,
        })
    }

    /// Where it listens, in the order of [`L7ServerConfig::addresses`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A plan has been published: every open connection is judged again. Called after
    /// [`Judge::generation`] has changed.
    pub fn rules_changed(&self) {
        self.order(WorkerOrder::JudgeAgain);
    }

    /// Takes what waits at the listeners, closes them, and lets each connection of HTTP end with
    /// its next response. Called when the kernel redirects to another agent.
    pub fn drain(&self) {
        self.order(WorkerOrder::Drain);
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn order(&self, order: WorkerOrder) {
        for worker in &self.workers {
            // A worker that is gone has no connections.
            let _ = worker.orders.send(order);
        }
    }
}

impl Drop for L7Server {
    fn drop(&mut self) {
        self.order(WorkerOrder::Stop);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a thread for inspected connections panicked");
            }
        }
    }
}
