//! What a lookup allocates on its worker, with the agent's own gate in front of a kernel. Needs
//! root.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use agent::gate::{GateSettings, NodeGate};
use agent::metrics::Metrics;
use agent::records::AnswerLog;
use allocations::count;
use cluster::catalogue::Catalogue;
use cluster::index::Cluster;
use dns_proxy::bench_harness::LookupHarness;
use dns_proxy::{CacheConfig, ServerConfig};
use enforcer::Enforcer;
use events::{EventLog, RingLimits};
use fqdn_cache::Ledger;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netns::Namespace;
use parking_lot::Mutex;
use planner::{ActivePlan, Planner};
use policy::QuestionMode;
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts};

const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 10);
const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: main, image: none}]}
status: {podIP: 10.244.0.10, podIPs: [{ip: 10.244.0.10}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchPattern: '*.example'}]
    toPorts: [{ports: [{port: '443', protocol: TCP}]}]
";

/// Lookups of each run. Before the runs there is another: buffers and tables grow to their size.
const TIMES: u32 = 100;
/// Measurements of each kind. A commit that takes long on a busy machine sends the next ones to the
/// writer's thread, which costs allocations that a lookup alone does not have.
const RUNS: u32 = 30;

// The figures stand in docs/performance.md too.
/// The name, and the lookup's place in flight.
const KNOWN: f64 = 2.0;
const CACHED: f64 = 2.0;
/// A denied lookup allocates its name.
const DENIED: f64 = 1.0;
/// Of a lookup that is alone, with the transaction that puts its addresses into the kernel. Not a
/// whole number: tables grow now and then.
const NEW: f64 = 5.0;

#[test]
fn a_lookup_allocates_no_more_than_is_noted() {
    let node = Namespace::new().unwrap();
    node.run(|| {
        let gate = Arc::new(gate());
        let plain = || LookupHarness::new(Arc::clone(&gate), ServerConfig::default()).unwrap();
        let cache = CacheConfig {
            entries: NonZeroUsize::new(1_000).unwrap(),
            stale_for: Duration::ZERO,
        };
        let config = ServerConfig {
            cache: Some(cache),
            ..ServerConfig::default()
        };
        let caching = LookupHarness::new(Arc::clone(&gate), config).unwrap();
        let known = |_| "api.example.".to_owned();
        let new = |number| format!("n{number}.example.");
        let denied = |_| "api.denied.".to_owned();
        let allocated = [
            ("known", allocated(plain(), known, ResponseCode::NoError), KNOWN),
            ("cached", allocated(caching, known, ResponseCode::NoError), CACHED),
            ("denied", allocated(plain(), denied, ResponseCode::NXDomain), DENIED),
            ("new", allocated(plain(), new, ResponseCode::NoError), NEW),
        ];
        for (kind, allocated, _) in allocated {
            println!("{kind}: {allocated:.2} allocations a lookup");
        }
        for (kind, allocated, noted) in allocated {
            assert!(allocated <= noted, "{kind}: {allocated:.2} allocations a lookup");
        }
    })
    .unwrap();
}

/// Allocations of the calling thread for each lookup: the least of [`RUNS`].
fn allocated(mut worker: LookupHarness<NodeGate>, name: impl Fn(u32) -> String, code: ResponseCode) -> f64 {
    let mut packets: Vec<_> = (0..(1 + RUNS) * TIMES)
        .map(|number| packets(&name(number), number))
        .collect();
    let client = SocketAddr::from((POD, 40_000));
    let mut look_up = |(query, answer): &mut (Vec<u8>, Vec<u8>)| {
        let reply = worker.lookup(client, query, answer);
        assert_eq!(
            reply.get(3).map(|octet| octet & 0xf),
            Some(u16::from(code) as u8),
            "an answer"
        );
    };
    let (warm_up, measured) = packets.split_at_mut(TIMES as usize);
    warm_up.iter_mut().for_each(&mut look_up);
    let runs = measured.chunks_mut(TIMES as usize).map(|run| {
        let ((), allocations) = count(|| run.iter_mut().for_each(&mut look_up));
        allocations as f64 / f64::from(TIMES)
    });
    runs.fold(f64::INFINITY, f64::min)
}

/// A question and its answer with two addresses, which are the name's own.
fn packets(name: &str, number: u32) -> (Vec<u8>, Vec<u8>) {
    let number = if name == "api.example." { 0 } else { number + 1 };
    let name = Name::from_ascii(name).unwrap();
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), RecordType::A));
    let mut answer = query.clone().into_response();
    for of_two in [0, 1] {
        let address = Ipv4Addr::from_bits(0x1400_0000 + 2 * number + of_two);
        answer.add_answer(Record::from_rdata(name.clone(), 300, RData::A(A(address))));
    }
    (query.to_vec().unwrap(), answer.to_vec().unwrap())
}

/// The agent's gate with one pod and one policy in force, in the namespace of the calling thread.
fn gate() -> NodeGate {
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Ok("nameserver 192.0.2.53\n".into()),
    };
    let mut options = AgentOptions::default();
    options.lookups.dns_questions = Some(QuestionMode::AllowedOnly);
    let settings = resolve(options, &host).unwrap();
    let files = BTreeMap::from([("objects.yaml".into(), Ok(OBJECTS.to_owned()))]);
    let update = Catalogue::default().scan(files).unwrap();
    let mut cluster = Cluster::new(&settings.node);
    update.changes.into_iter().for_each(|change| cluster.apply(change));
    let plan = Arc::new(Planner::default().plan(&cluster, &settings, &Arc::default()));
    assert!(plan.governed.contains_key(&IpAddr::V4(POD)), "the pod is governed");

    let enforcer = Enforcer::start(&settings.table).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let generation = runtime
        .block_on(enforcer.install(plan.desired.clone(), Vec::new))
        .unwrap();
    let terms = GateSettings {
        encrypted_dns_discovery: settings::EncryptedDnsDiscovery::Deny,
        denied: settings.lookups.dns_denied,
        lease: settings.lease,
        commit_deadline: settings.lookups.commit_deadline,
        upstreams: settings.upstreams.clone().into(),
    };
    NodeGate::new(
        ActivePlan {
            plan,
            generation,
            coming: None,
        },
        Arc::new(Mutex::new(Ledger::new(settings.limits, settings.lease))),
        enforcer,
        terms,
        Arc::new(Metrics::new()),
        Some(Arc::new(AnswerLog::default())),
        Arc::new(EventLog::new(RingLimits::default())),
    )
}
