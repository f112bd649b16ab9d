//! The resolver of the lab: an authoritative server whose records tests change while it runs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use netns::{Namespace, NamespaceThread};
use parking_lot::{Mutex, MutexGuard};

use super::zone::{LabZone, NumberedNames, ScriptedAnswer, ZoneAnswer, ZoneError};
use super::{DNS_PORT, internet};

/// An idle TCP connection is closed after this time.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// How many answers may wait on one TCP connection.
const TCP_ANSWERS: usize = 64;

/// The running resolver, until it is dropped.
#[derive(Debug)]
pub struct Resolver {
    zone: Arc<Mutex<LabZone>>,
    _thread: NamespaceThread,
}

impl Resolver {
    /// Serves on port 53 of `addresses`, over UDP and TCP.
    pub(super) fn start(namespace: &Namespace, addresses: &[IpAddr]) -> io::Result<Self> {
        let zone = Arc::new(Mutex::new(LabZone::default()));
        let handler = ZoneHandler {
            zone: Arc::clone(&zone),
        };
        let thread = namespace.start_thread("lab-resolver")?;
        let addresses = addresses.to_vec();
        let mut server = thread.run(async move {
            let mut server = Server::new(handler);
            for address in addresses {
                let address = SocketAddr::new(address, DNS_PORT);
                server.register_socket(internet::udp_socket(address)?);
                server.register_listener(internet::tcp_listener(address)?, TCP_IDLE, TCP_ANSWERS);
            }
            io::Result::Ok(server)
        })??;
        thread.spawn(async move { server.block_until_done().await });
        Ok(Self { zone, _thread: thread })
    }

    /// Replaces the record set of each name and type that the lines mention. A line is as in a zone
    /// file: `api.example 60 A 198.51.100.7`, `www.example 60 HTTPS 1 . ipv4hint=198.51.100.7`.
    pub fn set(&self, lines: &[&str]) -> Result<(), ZoneError> {
        self.zone().set(lines)
    }

    /// Removes all records and the scripted answer of a name.
    pub fn remove(&self, name: &str) -> Result<(), ZoneError> {
        self.zone().remove(name)
    }

    /// Answers `name` by `script` from now on; `None` for the records of the zone.
    pub fn script(&self, name: &str, script: impl Into<Option<ScriptedAnswer>>) -> Result<(), ZoneError> {
        self.zone().script(name, script.into())
    }

    /// Adds a series of numbered names.
    pub fn synthesize(&self, synthesis: NumberedNames) {
        self.zone().synthesize(synthesis);
    }

    /// How often `name` was asked, of any type and over any transport.
    pub fn asked(&self, name: &str) -> u64 {
        self.zone().asked(name)
    }

    /// How many questions arrived in all.
    pub fn asked_in_all(&self) -> u64 {
        self.zone().asked_in_all()
    }

    fn zone(&self) -> MutexGuard<'_, LabZone> {
        self.zone.lock()
    }
}

struct ZoneHandler {
    zone: Arc<Mutex<LabZone>>,
}

#[async_trait]
impl RequestHandler for ZoneHandler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let Some(answer) = self.answer(request) else {
            return unsent(metadata);
        };
        if !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        metadata.authoritative = true;
        metadata.recursion_available = true;
        metadata.response_code = answer.code;
        metadata.truncation = answer.truncated;
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload());
        let builder = MessageResponseBuilder::new(&request.queries, request.edns.is_some().then_some(&edns));
        let response = builder.build(metadata, &answer.records, [], &answer.soa, []);
        handle
            .send_response(response)
            .await
            .unwrap_or_else(|_| unsent(metadata))
    }
}

impl ZoneHandler {
    fn answer(&self, request: &Request) -> Option<ZoneAnswer> {
        let Ok(info) = request.request_info() else {
            return Some(ZoneAnswer {
                code: ResponseCode::FormErr,
                records: Vec::new(),
                soa: None,
                delay: Duration::ZERO,
                truncated: false,
            });
        };
        let udp = info.protocol == Protocol::Udp;
        self.zone.lock().answer(info.query.name(), info.query.query_type(), udp)
    }
}

fn unsent(metadata: Metadata) -> ResponseInfo {
    ResponseInfo::from(Header {
        metadata,
        counts: HeaderCounts::default(),
    })
}
