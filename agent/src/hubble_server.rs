//! What the agent shows over Hubble's observer API.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use api::EventRow;
use events::{EventKind, EventReader};
use hubble::observer::NodeObserver;
use hubble::{FlowReader, FlowSource, ListenError, ObservedNode, listen};
use settings::{HubblePlace, SocketGroup};
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::error;

use crate::event_rows;
use crate::http;
use crate::inspect::Inspect;
use crate::local_socket::{self, ServeError, SocketFile};

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct HubbleServer {
    _socket: Option<SocketFile>,
    task: JoinHandle<()>,
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum HubbleError {
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] ServeError),
    /// Its port.
    #[error("cannot serve Hubble's observer API on {address}: {error}; choose another address with --hubble")]
    Port {
        /// The address that could not be bound.
        address: SocketAddr,
        /// The error of the bind.
        error: io::Error,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] ListenError),
}

impl HubbleServer {
    /// Serves there. Must be called inside a tokio runtime.
    pub fn start(
        place: &HubblePlace,
        group: Option<&SocketGroup>,
        inspect: Arc<dyn Inspect>,
    ) -> Result<Self, HubbleError> {
        let source = Arc::new(InspectedEvents(inspect));
        let (socket, task) = match place {
            HubblePlace::Socket(path) => {
                let (listener, socket) = local_socket::bind(path, group)?;
                let observer = NodeObserver::new(source, format!("unix://{}", path.display()), false);
                (
                    Some(socket),
                    tokio::spawn(until_failure(listen::serve_unix(listener, observer))),
                )
            }
            HubblePlace::Port { address, tls } => {
                let tls = listen::read_tls(&hubble::TlsFiles {
                    certificate: tls.certificate.clone(),
                    key: tls.key.clone(),
                    client_authorities: tls.client_authorities.clone(),
                })?;
                let address = *address;
                let listener = http::bind(address).map_err(|error| HubbleError::Port { address, error })?;
                let observer = NodeObserver::new(source, address.to_string(), true);
                (
                    None,
                    tokio::spawn(until_failure(listen::serve_tls(listener, tls, observer))),
                )
            }
        };
        Ok(Self { _socket: socket, task })
    }
}

impl Drop for HubbleServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn until_failure(server: impl Future<Output = Result<(), ListenError>>) {
    if let Err(error) = server.await {
        error!("the observer API has ended: {error}");
    }
}

/// What is shown as flows.
const WATCHED: [EventKind; 3] = [EventKind::Lookup, EventKind::Flow, EventKind::Request];

/// The events of the running agent.
struct InspectedEvents(Arc<dyn Inspect>);

impl FlowSource for InspectedEvents {
    fn node(&self) -> ObservedNode {
        self.0.observed_node()
    }

    fn read(&self, with_past: bool) -> Box<dyn FlowReader> {
        let log = self.0.events();
        Box::new(InspectedReader {
            reader: match with_past {
                true => log.read_all(WATCHED),
                false => log.read_new(WATCHED),
            },
            inspect: Arc::clone(&self.0),
        })
    }

    fn remembered(&self) -> Vec<EventRow> {
        let batch = self.0.events().remembered();
        batch
            .events
            .iter()
            .map(|(number, event)| self.0.event_row(*number, event))
            .collect()
    }

    fn policy_kind(&self, policy: &str) -> Option<String> {
        self.0.policy_kind(policy)
    }
}

struct InspectedReader {
    inspect: Arc<dyn Inspect>,
    reader: EventReader,
}

impl FlowReader for InspectedReader {
    fn next_rows(&mut self) -> Vec<EventRow> {
        let batch = self.reader.next_batch();
        let lost = (batch.lost > 0).then(|| event_rows::lost(batch.lost, &self.inspect.node(), clock::wall_now()));
        let told = batch
            .events
            .iter()
            .map(|(number, event)| self.inspect.event_row(*number, event));
        lost.into_iter().chain(told).collect()
    }
}
