//! One pod that asks for as many names as the ledger holds, as long as names can be, each with four
//! addresses, four ports and a long lease, half of them IPv6. What that costs is measured: the
//! agent's memory, how soon an edit of another pod's policy is in force, and how soon an agent that
//! is started again intercepts lookups and is ready.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::StubResolver;
use lab::{NumberedNames, RESOLVER, dns};
use namegate_integration::{Scenario, ip};

use crate::probes;
use crate::site::{self, DENIED, DENIED_NAME, Mode, NEW};

/// Clients of the pod, each of which waits for its answer before it asks again.
const CLIENTS: u32 = 16;
const ADDRESSES: u32 = 4;
/// With these a name has 240 octets, of 255 at most.
const LABELS: [&str; 4] = [LABEL, LABEL, LABEL, "that-is-in-the-way-of-others"];
const LABEL: &str = "a-label-of-sixty-octets-and-more-since-a-name-may-be-that-long";
/// What holds, whatever one pod does.
const MOST_MIB: f64 = 160.0;
const EDIT_WITHIN: Duration = Duration::from_secs(3);

/// What both pods may reach. Each address is an element of four ports.
const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: reliability, namespace: shop}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchPattern: '**.new.example'}]
    toPorts: [{ports: [{port: '9'}, {port: '80'}, {port: '443'}, {port: '8443'}]}]
";

/// Opens an address to the other pod, so that the edit can be seen.
const EDIT: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: edited, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: pod1}}
  egress:
  - toCIDR: [DENIED/32]
";

pub(crate) fn run(names: u32) {
    let mut scenario = site::start(Mode::Dnat, "");
    let program = || scenario.installation().status().unwrap().endpoints[0].program.clone();
    let before = program();
    scenario.write("policy.yaml", POLICY);
    scenario.wait_until("the policy is in force", || program() != before);
    let suffix = format!("{}.{NEW}", LABELS.join("."));
    scenario.lab().resolver().synthesize(NumberedNames {
        suffix: suffix.clone(),
        ttl: 3_600,
        addresses: ADDRESSES,
        first4: Ipv4Addr::new(40, 0, 0, 0),
        first6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0),
    });
    let (next, answered) = (AtomicU32::new(0), AtomicU32::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let ask = || ask_all(&next, &answered, names, &suffix);
                scenario.pod(0).namespace().run(ask).unwrap();
            });
        }
    });
    let answered = answered.into_inner();
    println!(
        "asked            {names} names, {answered} answered, in {:.1?}",
        begun.elapsed()
    );

    let begun = Instant::now();
    scenario.write("edit.yaml", &EDIT.replace("DENIED", DENIED));
    scenario.wait_until("the edit is in force", || {
        scenario.connect(1, ip(DENIED)).is_connected()
    });
    let edit = begun.elapsed();
    println!("edit in force    {edit:.1?}");
    let status = scenario.installation().status().unwrap();
    println!(
        "held             {} names, {} addresses, {} elements",
        status.names, status.addresses, status.elements
    );
    let before = peak_mib(&scenario);
    println!("peak memory      {before:.1} MiB");

    // Long enough for the snapshot to hold them all.
    thread::sleep(Duration::from_secs(10));
    scenario.kill();
    scenario.wait_until("lookups go past a dead agent", || !is_intercepted(&scenario));
    let begun = Instant::now();
    scenario.start_unready();
    scenario.wait_until("lookups are intercepted", || is_intercepted(&scenario));
    println!("intercepting     {:.1?} after the start", begun.elapsed());
    scenario.wait_until("it is ready", || {
        scenario.installation().status().is_ok_and(|status| status.ready)
    });
    println!("ready            {:.1?} after the start", begun.elapsed());
    let after = peak_mib(&scenario);
    println!("peak memory      {after:.1} MiB");
    if edit > EDIT_WITHIN || before.max(after) > MOST_MIB {
        std::process::exit(1);
    }
}

fn ask_all(next: &AtomicU32, answered: &AtomicU32, names: u32, suffix: &str) {
    let stub = StubResolver::new(dns(RESOLVER)).unwrap();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= names {
            return;
        }
        let kind = match number % 2 {
            0 => RecordType::A,
            _ => RecordType::AAAA,
        };
        let reply = stub.ask(&format!("n{number}.{suffix}"), kind, true);
        let has_address = reply.is_ok_and(|reply| reply.address().is_some());
        answered.fetch_add(u32::from(has_address), Ordering::Relaxed);
    }
}

/// Whether a lookup comes to a living agent: a name that no policy allows is NXDOMAIN there, and
/// has an address at the resolver. Asked from the pod that does not hoard, because to read the
/// heartbeat's set with `nft` takes as long as reading the whole table.
fn is_intercepted(scenario: &Scenario) -> bool {
    let ask = || probes::ask(DENIED_NAME, 7);
    let reply = scenario.pod(1).namespace().run(ask).unwrap();
    matches!(reply, Ok((ResponseCode::NXDomain, _)))
}

/// The most memory that the agent has held so far.
fn peak_mib(scenario: &Scenario) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", scenario.agent().pid())).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmHWM:")?.split_whitespace().next()?;
        value.parse::<f64>().ok()
    });
    kib.unwrap_or_default() / 1_024.0
}
