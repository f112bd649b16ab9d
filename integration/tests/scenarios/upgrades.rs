//! A new agent beside the old one, which then ends: no lookup notices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{RESOLVER, dns};
use namegate_integration::SetOnDrop;

use super::plan;

/// Agents that follow each other.
const UPGRADES: u32 = 8;

#[test]
fn no_lookup_is_lost_while_agents_follow_each_other_under_dnat() {
    upgrade_under_lookups("dnat");
}

#[test]
fn no_lookup_is_lost_while_agents_follow_each_other_under_tproxy() {
    upgrade_under_lookups("tproxy");
}

#[test]
fn no_lookup_is_lost_while_supervised_agents_follow_each_other_under_dnat() {
    upgrade_under_lookups("dnat --supervise");
}

#[test]
fn no_lookup_is_lost_while_supervised_agents_follow_each_other_under_tproxy() {
    upgrade_under_lookups("tproxy --supervise");
}

fn upgrade_under_lookups(interception: &str) {
    let mut scenario = plan()
        .flags(&format!("--intercept {interception}"))
        .allow(0, &["a.example"])
        .allow(1, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .build();
    // Without it the kernel resets a connection whose handshake is under way when the old agent
    // closes its listener.
    scenario.lab().node().set_sysctl("ipv4/tcp_migrate_req", "1").unwrap();
    scenario.start();
    let clients = [
        (0, LookupTransport::Udp),
        (1, LookupTransport::Udp),
        (1, LookupTransport::Tcp),
    ]
    .map(|(pod, transport)| (scenario.pod(pod).clone(), transport));
    let over = AtomicBool::new(false);
    let answered = clients.each_ref().map(|_| AtomicU32::new(0));
    let lost = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for ((pod, transport), answered) in clients.iter().zip(&answered) {
            let (over, lost) = (&over, &lost);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match pod.resolve(dns(RESOLVER), "a.example", RecordType::A, *transport) {
                        Ok(reply) if reply.address().is_some() => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        other => lost.lock().unwrap().push(format!("{transport:?}: {other:?}")),
                    }
                }
            });
        }
        // Also when an upgrade fails: the scope waits for the clients.
        let _end = SetOnDrop(&over);
        for _ in 0..UPGRADES {
            scenario.upgrade();
        }
    });
    let answered = answered.map(AtomicU32::into_inner);
    // The figures are part of what the tests show.
    #[allow(clippy::print_stdout)]
    {
        println!("{UPGRADES} upgrades under {interception}: {answered:?} lookups answered over UDP, UDP and TCP");
    }
    let lost = lost.into_inner().unwrap();
    assert!(lost.is_empty(), "{} of {answered:?}: {lost:?}", lost.len());
}
