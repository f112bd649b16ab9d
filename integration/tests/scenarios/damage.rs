//! What others do to the node under a running agent, and to the table while there is none.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{RESOLVER, dns};
use namegate_integration::{Scenario, SetOnDrop, ip};

use super::plan;

/// What is in force again within 300 ms is given more on a machine that is loaded. The figures are
/// printed.
const SOON: Duration = Duration::from_secs(10);

const ALLOWED: &str = "198.51.100.1";
const DENIED: &str = "198.51.100.2";

fn governed(flags: &str) -> Scenario {
    let mut scenario = plan()
        .flags(flags)
        .allow(0, &["a.example", "c.example"])
        .records(&[
            "a.example 300 A 198.51.100.1",
            "b.example 300 A 198.51.100.2",
            "c.example 300 A 198.51.100.3",
        ])
        .build();
    scenario.start();
    scenario.learn(0, "a.example");
    scenario
}

/// Waits until everything is as policy says, and says how long that took.
fn is_enforced_again(scenario: &Scenario, what: &str) {
    let begun = Instant::now();
    let times = [
        (
            "what is denied is denied",
            scenario.wait_until("what is denied is denied", || {
                scenario.connect(0, ip(DENIED)).is_refused()
            }),
        ),
        (
            "what was learned is open",
            scenario.wait_until("what was learned is open", || {
                scenario.connect(0, ip(ALLOWED)).is_connected()
            }),
        ),
        (
            "lookups come to the agent",
            scenario.wait_until("lookups come to the agent", || {
                scenario
                    .try_ask(0, "b.example", RecordType::A)
                    .is_ok_and(|reply| reply.code() == ResponseCode::NXDomain)
            }),
        ),
        (
            "and are answered",
            scenario.wait_until("and are answered", || {
                let reply = scenario.try_ask(0, "c.example", RecordType::A);
                reply.is_ok_and(|reply| reply.address() == Some(ip("198.51.100.3")))
            }),
        ),
    ];
    // The figures are part of what the tests show.
    #[allow(clippy::print_stdout)]
    {
        println!("{what}: {times:?}");
    }
    patience::assert_took(what, begun.elapsed(), SOON);
    assert!(scenario.connect(0, ip("198.51.100.3")).is_connected(), "{what}");
}

/// That the agent said what it repaired, of this kind.
fn is_told(scenario: &Scenario, kind: &str, part: &str) {
    let took = scenario.wait_until("the repair is told", || {
        let status = scenario.installation().status().unwrap();
        status
            .last_repair
            .is_some_and(|repair| repair.damage.iter().any(|what| what.contains(part)))
    });
    patience::assert_took("the repair is told", took, SOON);
    let status = scenario.installation().status().unwrap();
    assert!(status.ready, "{:?}", status.not_ready_because);
    assert_eq!(status.damage, [""; 0]);
    let series = format!("namegate_repairs_total{{kind=\"{kind}\"}}");
    assert!(scenario.agent().metric(&series).unwrap() >= 1.0, "{series}");
    assert_eq!(scenario.agent().metric("namegate_damage").unwrap(), 0.0);
    let log = scenario.agent().log();
    assert!(
        log.iter().any(|line| line.contains("WARN") && line.contains(part)),
        "{part} is missing in\n{}",
        log.join("\n")
    );
}

#[test]
fn a_table_whose_rules_were_flushed_is_in_force_again() {
    let scenario = governed("");
    scenario.nft("flush table inet namegate");
    is_enforced_again(&scenario, "flush table");
    is_told(&scenario, "rules", "rules of chain ");
}

#[test]
fn a_map_that_was_flushed_is_filled_again() {
    let scenario = governed("");
    scenario.nft("flush map inet namegate dispatch4");
    is_enforced_again(&scenario, "flush map");
    is_told(&scenario, "elements", "dispatch4");
}

#[test]
fn a_rule_that_lets_everything_through_is_removed() {
    let scenario = governed("");
    scenario.nft("insert rule inet namegate dispatch accept");
    is_enforced_again(&scenario, "insert rule");
    is_told(&scenario, "rules", "rules of chain dispatch");
}

#[test]
fn a_table_that_is_gone_is_in_force_again() {
    let scenario = governed("");
    scenario.nft("delete table inet namegate");
    is_enforced_again(&scenario, "delete table");
    is_told(&scenario, "table", "the table was removed");
}

/// A port of the internet that nobody else listens at.
const SINK: u16 = 7_777;

/// Damages the table while a pod sends to a denied address, each datagram as a flow of its own, and
/// writing the whole table takes three seconds. From the moment when the agent has noticed, nothing
/// passes.
fn is_closed_while_it_is_repaired(damage: &str) {
    let mut scenario = plan()
        .allow(0, &["a.example", "c.example"])
        .records(&["a.example 300 A 198.51.100.1", "c.example 300 A 198.51.100.3"])
        .build();
    let slow = scenario.installation().scratch("slow");
    let nft = "if [ -e SLOW ]; then sleep 3; fi; exec /usr/sbin/nft \"$@\"";
    let nft = nft.replace("SLOW", &slow.display().to_string());
    scenario.replace_program("nft", &format!("#!/bin/sh\n{nft}\n"));
    scenario.start();
    scenario.learn(0, "a.example");
    std::fs::write(&slow, "").unwrap();

    let internet = scenario.lab().internet().namespace();
    let sink = internet.run(|| UdpSocket::bind((ip(DENIED), SINK))).unwrap().unwrap();
    sink.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let (damaged, arrived) = std::thread::scope(|scope| {
        let _end = SetOnDrop(&over);
        let pod = scenario.pod(0).namespace();
        scope.spawn(|| {
            pod.run(|| {
                while !over.load(Ordering::Relaxed) {
                    let sent = u64::try_from(begun.elapsed().as_micros()).unwrap();
                    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
                    // What is refused is an error of the socket.
                    let _ = socket.send_to(&sent.to_be_bytes(), (ip(DENIED), SINK));
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
            .unwrap();
        });
        let arrivals = scope.spawn(|| {
            let mut arrived = Vec::new();
            let mut sent = [0; 8];
            while !over.load(Ordering::Relaxed) {
                if sink.recv(&mut sent).is_ok() {
                    arrived.push(Duration::from_micros(u64::from_be_bytes(sent)));
                }
            }
            arrived
        });
        std::thread::sleep(Duration::from_millis(500));
        let damaged = begun.elapsed();
        scenario.nft(damage);
        scenario.wait_until("the repair is told", || {
            let status = scenario.installation().status();
            status.is_ok_and(|status| status.last_repair.is_some())
        });
        std::thread::sleep(Duration::from_millis(500));
        over.store(true, Ordering::Relaxed);
        (damaged, arrivals.join().unwrap())
    });
    let open: Vec<Duration> = arrived.iter().map(|sent| sent.saturating_sub(damaged)).collect();
    let last = open.iter().max().copied().unwrap_or_default();
    // The figures are part of what the tests show.
    #[allow(clippy::print_stdout)]
    {
        println!("{damage}: {} datagrams passed, the last after {last:?}", open.len());
    }
    assert!(
        last < Duration::from_secs(2),
        "{} passed, the last after {last:?}",
        open.len()
    );
    std::fs::remove_file(slow).unwrap();
    is_enforced_again(&scenario, damage);
}

#[test]
fn a_table_that_is_gone_is_closed_before_it_is_made_again() {
    is_closed_while_it_is_repaired("delete table inet namegate");
}

#[test]
fn a_table_that_is_somebody_elses_is_closed_before_it_is_made_anew() {
    is_closed_while_it_is_repaired(
        "delete table inet namegate; add table inet namegate; add set inet namegate pods4 { type ipv6_addr; }",
    );
}

#[test]
fn an_agent_that_starts_onto_empty_chains_fills_them() {
    let mut scenario = governed("");
    scenario.wait_saved("a.example");
    scenario.kill();
    scenario.nft("flush table inet namegate; flush set inet namegate pods4; flush map inet namegate dispatch4");
    scenario.start();
    is_enforced_again(&scenario, "restart onto empty chains");
}

#[test]
fn addresses_of_the_proxy_that_were_removed_are_put_back() {
    let scenario = governed("--intercept dnat --fail-mode closed");
    scenario.shell("ip addr del 169.254.53.53/32 dev lo; ip addr del fd6e:6de7:53a4::53/128 dev lo");
    // First: a lookup that is lost meanwhile is asked again after seconds.
    is_told(&scenario, "address", "address of the proxy on lo");
    is_enforced_again(&scenario, "ip addr del");
    // Over IPv6 too.
    let resolver = dns(lab::RESOLVER6);
    scenario.wait_until("lookups over IPv6", || {
        let reply = scenario
            .pod(0)
            .resolve(resolver, "a.example", RecordType::A, LookupTransport::Udp);
        reply.is_ok_and(|reply| reply.address() == Some(ip(ALLOWED)))
    });
    let tcp = scenario
        .pod(0)
        .resolve(dns(RESOLVER), "a.example", RecordType::A, LookupTransport::Tcp);
    assert_eq!(tcp.unwrap().address(), Some(ip(ALLOWED)));
}

#[test]
fn ipv6_that_was_switched_off_on_lo_is_switched_on_again() {
    let scenario = governed("--intercept dnat --fail-mode closed");
    scenario.shell("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
    scenario.wait_until("the proxy has its IPv6 address again", || {
        scenario.shell("ip -6 addr show dev lo").contains("fd6e:6de7:53a4::53")
    });
    scenario.wait_until("the repair is told", || {
        let repairs = scenario.agent().metric("namegate_repairs_total{kind=\"sysctl\"}");
        repairs.is_ok_and(|repairs| repairs >= 1.0)
    });
    is_ready_again(&scenario);
    is_enforced_again(&scenario, "disable_ipv6");
}

#[test]
fn sysctls_that_are_the_owners_to_set_back_are_told() {
    let scenario = governed("");
    // They are looked at once a second: by then it is known how the node is meant to be.
    std::thread::sleep(Duration::from_millis(2_500));
    scenario.shell("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let changed = || scenario.installation().status().unwrap().changed_sysctls;
    scenario.wait_until("it is in status", || {
        changed()
            .iter()
            .any(|what| what.contains("net.ipv4.ip_forward was set to 0"))
    });
    assert_eq!(scenario.agent().metric("namegate_changed_sysctls").unwrap(), 1.0);
    assert!(scenario.installation().status().unwrap().ready);
    assert_eq!(
        scenario.shell("cat /proc/sys/net/ipv4/ip_forward").trim(),
        "0",
        "it is the owner's"
    );
    let log = scenario.agent().log();
    let warnings = log
        .iter()
        .filter(|line| line.contains("WARN") && line.contains("ip_forward"));
    assert_eq!(warnings.count(), 1, "{log:?}");
    scenario.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    scenario.wait_until("it is as it was", || changed().is_empty());
}

#[test]
fn routing_rules_of_mode_tproxy_that_were_removed_are_put_back() {
    let scenario = governed("--intercept tproxy");
    scenario.shell("ip rule del pref 100; ip -6 rule del pref 100");
    is_told(&scenario, "route", "routing rule of mode tproxy");
    is_enforced_again(&scenario, "ip rule del");
}

#[test]
fn whoever_damages_again_and_again_makes_the_agent_say_that_it_is_not_ready() {
    let scenario = governed("");
    scenario.wait_until("it is not ready, and says why", || {
        scenario.nft("flush chain inet namegate forward");
        let status = scenario.installation().status();
        // `namegate status` ends with 1 when it is not ready.
        let said = status.map_or_else(
            |error| error.to_string(),
            |status| status.not_ready_because.unwrap_or_default(),
        );
        said.contains("again and again")
            || scenario
                .agent()
                .http("/readyz")
                .is_ok_and(|(code, text)| code == 503 && text.contains("again and again"))
    });
    is_ready_again(&scenario);
}

fn is_ready_again(scenario: &Scenario) {
    // At pauses of ten seconds at most.
    let is_ready = || scenario.installation().status().is_ok_and(|status| status.ready);
    let ready = patience::wait(Duration::from_secs(60), Duration::from_millis(50), is_ready);
    assert!(ready.is_some(), "it stays not ready");
    assert!(scenario.connect(0, ip(DENIED)).is_refused());
}
