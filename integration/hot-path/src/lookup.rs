//! The whole way of a lookup, with a gate that finds everything in the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use dns_proxy::bench_harness::LookupHarness;
use dns_proxy::{
    AdmissionStatus, CommitMode, Completion, Denial, DenialKind, DnsQuestion, Gate, ProxyEvent, QueryTarget, Rcode,
    Screening, ValidatedAnswer,
};
use dns_proxy::{CacheConfig, ServerConfig};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use names::{NameIndex, Pattern};

use crate::BenchIteration;

/// Lets pass what some pattern matches, and finds everything in the kernel.
struct AllowListGate {
    allowed: NameIndex<()>,
    upstreams: Arc<[SocketAddr]>,
}

/// The whole way of a lookup, again and again.
struct BenchLookup {
    harness: LookupHarness<AllowListGate>,
    query: Vec<u8>,
    answer: Vec<u8>,
}

pub(crate) fn forwarded() -> BenchIteration {
    BenchLookup::new("www.example.com.", None).passes()
}

pub(crate) fn cached() -> BenchIteration {
    let entries = NonZeroUsize::MIN;
    let stale_for = Duration::ZERO;
    let mut lookup = BenchLookup::new("www.example.com.", Some(CacheConfig { entries, stale_for }));
    lookup.run();
    lookup.passes()
}

pub(crate) fn denied() -> BenchIteration {
    BenchLookup::new("www.denied.example.", None).passes()
}

impl BenchLookup {
    fn new(name: &str, cache: Option<CacheConfig>) -> Self {
        let mut allowed = NameIndex::default();
        for pattern in ["*.example.com", "api.example.org", "**.internal.example"] {
            allowed.insert(&Pattern::pattern(pattern).unwrap(), ());
        }
        let gate = AllowListGate {
            allowed,
            upstreams: Arc::new([SocketAddr::from(([192, 0, 2, 53], 53))]),
        };
        let config = ServerConfig {
            cache,
            workers: 1,
            ..ServerConfig::default()
        };
        let (query, answer) = packets(name);
        Self {
            harness: LookupHarness::new(Arc::new(gate), config).unwrap(),
            query,
            answer,
        }
    }

    fn passes(mut self) -> BenchIteration {
        Box::new(move || self.run())
    }

    /// One lookup; the length of what the client gets.
    fn run(&mut self) -> usize {
        let client = SocketAddr::from(([10, 0, 0, 1], 40_000));
        self.harness.lookup(client, &self.query, &mut self.answer).len()
    }
}

/// A question and its answer with two addresses.
pub fn packets(name: &str) -> (Vec<u8>, Vec<u8>) {
    let name = Name::from_ascii(name).unwrap();
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), RecordType::A));
    let mut answer = query.clone().into_response();
    for last in [7, 8] {
        let address = RData::A(A(Ipv4Addr::new(198, 51, 100, last)));
        answer.add_answer(Record::from_rdata(name.clone(), 300, address));
    }
    (query.to_vec().unwrap(), answer.to_vec().unwrap())
}

impl Gate for AllowListGate {
    type Identity = IpAddr;
    type Proof = ();
    type WorkerState = ();

    fn worker_state(&self) {}

    fn screen(&self, (): &mut (), source: IpAddr, _: QueryTarget, question: &DnsQuestion) -> Screening<IpAddr> {
        match self.allowed.any_match(&question.name) {
            true => Screening::Forward {
                identity: source,
                upstreams: Arc::clone(&self.upstreams),
            },
            false => Screening::Refuse(Denial {
                rcode: Rcode::NxDomain,
                reason: String::new(),
                kind: DenialKind::Refused,
            }),
        }
    }

    fn admit(
        &self,
        (): &mut (),
        _: &IpAddr,
        _: ValidatedAnswer,
        _: CommitMode,
        _: impl FnOnce() -> Completion<()>,
    ) -> AdmissionStatus<()> {
        AdmissionStatus::Settled(Ok(()))
    }

    fn flush(&self, (): &mut ()) {}

    fn observe(&self, (): &mut (), _: ProxyEvent<'_>) {}
}
