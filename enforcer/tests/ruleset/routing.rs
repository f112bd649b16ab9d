//! What the interception modes put beside the ruleset.

use std::num::NonZeroU32;

use enforcer::Interception;
use enforcer::routing::{self, LISTEN_V4, LISTEN_V6};

use crate::lab::{Lab, Namespace, OUTSIDE, ip};

const TPROXY: Interception = Interception::Tproxy {
    mark: NonZeroU32::new(0x20_0000).unwrap(),
    routing_table: 2053,
    port: 10053,
};

#[test]
fn the_listening_addresses_come_and_go() {
    let Some(lab) = Lab::new() else { return };
    let before = state(&lab.node);
    for _ in 0..2 {
        lab.node.enter(|| routing::set_up(&Interception::Dnat)).unwrap();
        let own = lab.node.enter(routing::own_addresses).unwrap();
        assert!(
            own.contains(&LISTEN_V4.into()) && own.contains(&LISTEN_V6.into()),
            "{own:?}"
        );
    }
    for _ in 0..2 {
        lab.node.enter(|| routing::take_down(&Interception::Dnat));
        assert_eq!(state(&lab.node), before);
    }
}

#[test]
fn the_policy_routes_come_and_go_and_leave_those_of_others() {
    let Some(lab) = Lab::new() else { return };
    lab.node.ip(&[
        "rule",
        "add",
        "pref",
        "100",
        "fwmark",
        "0x200000/0x200000",
        "lookup",
        "2054",
    ]);
    let before = state(&lab.node);
    for _ in 0..2 {
        lab.node.enter(|| routing::set_up(&TPROXY)).unwrap();
        for family in ["-4", "-6"] {
            let rules = lab.node.ip(&[family, "rule"]);
            let ours: Vec<_> = rules.lines().filter(|rule| rule.contains("proto 78")).collect();
            assert_eq!(ours.len(), 2, "{rules}");
            assert!(ours[0].starts_with("99:") && ours[0].contains("iif lo") && ours[0].contains("goto 32766"));
            assert!(ours[1].starts_with("100:") && ours[1].contains("fwmark 0x200000/0x200000 lookup 2053"));
            let routes = lab.node.ip(&[family, "route", "show", "table", "2053"]);
            assert!(routes.starts_with("local default dev lo proto 78"), "{routes}");
        }
    }
    for _ in 0..2 {
        lab.node.enter(|| routing::take_down(&TPROXY));
        assert_eq!(state(&lab.node), before);
    }
}

#[test]
fn a_cleanup_removes_what_any_mode_made_with_any_numbers() {
    let Some(lab) = Lab::new() else { return };
    lab.node.ip(&[
        "rule",
        "add",
        "pref",
        "100",
        "fwmark",
        "0x200000/0x200000",
        "lookup",
        "2054",
    ]);
    let before = state(&lab.node);
    let another = Interception::Tproxy {
        mark: NonZeroU32::new(0x80).unwrap(),
        routing_table: 90,
        port: 1,
    };
    for interception in [Interception::Dnat, TPROXY, another] {
        lab.node.enter(|| routing::set_up(&interception)).unwrap();
    }
    lab.node.enter(routing::take_down_all);
    assert_eq!(state(&lab.node), before);
    lab.node.enter(routing::take_down_all);
    assert_eq!(state(&lab.node), before);
}

#[test]
fn a_node_without_ipv6_gets_the_ipv4_half() {
    let Some(lab) = Lab::new() else { return };
    lab.node.sysctl("net.ipv6.conf.all.disable_ipv6=1");
    lab.node.sysctl("net.ipv6.conf.lo.disable_ipv6=1");
    let before = state(&lab.node);
    for interception in [Interception::Dnat, TPROXY] {
        lab.node.enter(|| routing::set_up(&interception)).unwrap();
    }
    assert!(
        lab.node
            .enter(routing::own_addresses)
            .unwrap()
            .contains(&LISTEN_V4.into())
    );
    lab.node.enter(routing::take_down_all);
    assert_eq!(state(&lab.node), before);
}

#[test]
fn lo_is_brought_up() {
    let Some(lab) = Lab::new() else { return };
    lab.node.ip(&["link", "set", "lo", "down"]);
    lab.node.enter(|| routing::set_up(&Interception::Dnat)).unwrap();
    assert!(lab.node.ip(&["link", "show", "lo"]).contains("LOOPBACK,UP"));
}

#[test]
fn own_addresses_are_those_of_every_interface() {
    let Some(lab) = Lab::new() else { return };
    let own = lab.outside.enter(routing::own_addresses).unwrap();
    for address in OUTSIDE.into_iter().chain(["127.0.0.1", "::1"]) {
        assert!(own.contains(&ip(address)), "{address} is not in {own:?}");
    }
    assert!(own.is_sorted());
}

/// Addresses of lo, rules, and the routes of every table in question.
fn state(node: &Namespace) -> String {
    let mut state = node.ip(&["-br", "addr", "show", "lo"]);
    for family in ["-4", "-6"] {
        state += &node.ip(&[family, "rule"]);
        for table in ["90", "2053"] {
            // A table that never had a route does not exist, and ip says so; an emptied one is
            // empty.
            state += &node
                .run("ip", &[family, "route", "show", "table", table], "")
                .unwrap_or_default();
        }
    }
    state
}
