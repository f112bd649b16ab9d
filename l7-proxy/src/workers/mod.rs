//! The threads: sockets around conversations.
//!
//! A worker accepts, asks whom the client wanted (`SO_ORIGINAL_DST`), and drives one conversation
//! for each connection on its own thread. Workers share the judge and the quota, and nothing else.
//!
//! - `accepting`: listeners, and what a connection was asked for. `quota`: how many there may be.
//! - `passage`: one connection: reads, writes and deadlines around a conversation.
//! - `side`: one side's socket. `secure`: handshakes of TLS that ends here.
//! - `dial`: the connection to the server. `relay`: what passes unread, within the kernel.
//! - `signals`: what a worker tells all its connections.

mod accepting;
mod dial;
mod passage;
mod quota;
mod relay;
mod secure;
mod side;
mod signals;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, LocalSet};

use crate::config::{DialOptions, L7ServerConfig};
use crate::conversation::Conversation;
use crate::event::PassageEvent;
use crate::judge::{ConnectionVerdict, Judge};
use crate::limits::PassageLimits;
use crate::refusal::Refusal;
pub(crate) use accepting::listen;
use passage::Passage;
use quota::{ConnectionQuota, QuotaShare};
use signals::WorkerSignals;

/// How long a worker waits after an accept that failed, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all workers share.
pub(crate) struct Shared<J> {
    judge: Arc<J>,
    dial: DialOptions,
    limits: PassageLimits,
    own_addresses: Vec<SocketAddr>,
    quota: Arc<ConnectionQuota>,
}

impl<J: Judge> Shared<J> {
    pub(crate) fn new(judge: Arc<J>, config: &L7ServerConfig, own_addresses: Vec<SocketAddr>) -> Self {
        Self {
            judge,
            dial: config.dial,
            limits: config.limits,
            own_addresses,
            quota: Arc::new(ConnectionQuota::new(config.limits)),
        }
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> Arc<AtomicUsize> {
        self.quota.open()
    }
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerOrder {
    JudgeAgain,
    Drain,
    Stop,
}

/// One thread.
pub(crate) struct Worker<J> {
    shared: Arc<Shared<J>>,
    listeners: Vec<std::net::TcpListener>,
}

impl<J: Judge> Worker<J> {
    pub(crate) fn new(shared: Arc<Shared<J>>, listeners: Vec<std::net::TcpListener>) -> Self {
        Self { shared, listeners }
    }

    pub(crate) fn run(self, orders: UnboundedReceiver<WorkerOrder>) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot inspect connections");
                return;
            }
        };
        // Dropping the set drops the connections, which resets them.
        LocalSet::new().block_on(&runtime, self.obey(orders));
    }

    async fn obey(self, mut orders: UnboundedReceiver<WorkerOrder>) {
        let signals = Rc::new(WorkerSignals::default());
        let mut accepting: Vec<JoinHandle<()>> = Vec::new();
        for listener in self.listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let accept = accept_all(listener, Arc::clone(&self.shared), Rc::clone(&signals));
                    accepting.push(tokio::task::spawn_local(accept));
                }
                Err(error) => tracing::error!(%error, "cannot accept connections to be inspected"),
            }
        }
        let mut generation = self.shared.judge.generation();
        while let Some(order) = orders.recv().await {
            match order {
                WorkerOrder::JudgeAgain => {
                    // Several changes may have been published since the first was told.
                    let of_now = self.shared.judge.generation();
                    if of_now != generation {
                        generation = of_now;
                        signals.judge_again();
                    }
                }
                WorkerOrder::Drain => signals.drain(),
                WorkerOrder::Stop => break,
            }
        }
        for task in accepting {
            task.abort();
        }
    }
}

/// Accepts until the worker drains, and then what still waits.
async fn accept_all<J: Judge>(listener: TcpListener, shared: Arc<Shared<J>>, signals: Rc<WorkerSignals>) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = signals.draining() => return,
        };
        match accepted {
            Ok((stream, source)) => admit(stream, source, &shared, &signals),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to be inspected");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Decides what becomes of a connection, and starts it.
fn admit<J: Judge>(stream: TcpStream, source: SocketAddr, shared: &Arc<Shared<J>>, signals: &Rc<WorkerSignals>) {
    let judge = &shared.judge;
    let refuse = |stream: TcpStream, refusal: Refusal, detail: &str| {
        judge.observe(None, PassageEvent::Refused { refusal, detail });
        reset(&stream);
    };
    let asked = match accepting::original_destination(&stream) {
        Ok(asked) => asked,
        Err(error) => return refuse(stream, Refusal::NoDestination, &error.to_string()),
    };
    // It was not redirected here, and what would be dialled is this listener.
    if shared.own_addresses.contains(&asked) {
        return refuse(
            stream,
            Refusal::Loop,
            &format!("{source} connected to the proxy itself"),
        );
    }
    let share = match ConnectionQuota::take(&shared.quota, source.ip(), clock::now()) {
        Ok(share) => share,
        Err(refusal) => return refuse(stream, refusal, &format!("{source} connected to {asked}")),
    };
    let now = clock::now();
    let conversation = match judge.connection(source, asked) {
        ConnectionVerdict::Inspect {
            connection,
            inspection,
            dial,
        } => Conversation::inspect(connection, inspection, dial, shared.limits, now),
        ConnectionVerdict::Pass { connection, judged } => Conversation::pass(connection, judged, shared.limits, now),
        // The judge has recorded it.
        ConnectionVerdict::Refuse(_) => return reset(&stream),
    };
    accepting::prepare(&stream);
    let passage = Passage::new(
        Arc::clone(judge),
        conversation,
        stream,
        dial::Route { source, asked },
        shared.dial,
    );
    let signal = signals.join();
    tokio::task::spawn_local(run(passage, signal, share));
}

async fn run<J: Judge>(passage: Passage<J>, signal: signals::SignalListener, share: QuotaShare) {
    passage.run(&signal).await;
    drop(share);
}

/// Makes the socket end with a reset and not with an end, when it is dropped.
fn reset(stream: &TcpStream) {
    // A socket that cannot be set so has ended already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
