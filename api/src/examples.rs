//! Examples of every answer, for the tests of what shows them.
#![allow(clippy::unwrap_used)] // Of addresses that are written here.

use crate::{
    AgentStatus, EndpointRow, EventEndRow, EventRow, LookupAnswerRow, NameRow, RecordRow, Records, RecordsSummary,
    RefusedLookupRow, ReportRow, Sightings, WithheldRow,
};

/// Two names with an address each.
pub fn names() -> Vec<NameRow> {
    let row = |name: &str, address: &str| NameRow {
        name: name.into(),
        address: address.parse().unwrap(),
        lease_left_ms: 61_500,
        source: "192.0.2.53".parse().unwrap(),
        private: false,
        selectors: vec!["*.example".into()],
        policies: vec!["shop/api".into()],
    };
    vec![row("a.example", "192.0.2.1"), row("b.example", "2001:db8::1")]
}

/// A refused packet, an audited one, and an answer that was withheld.
pub fn records() -> Records {
    let refused = RecordRow {
        kind: "flow".into(),
        seen: Sightings {
            last_seen: "2026-11-30T11:59:58.500Z".into(),
            first_seen: "2026-11-30T11:58:58.500Z".into(),
            last_seen_ms_ago: 1_500,
            first_seen_ms_ago: 61_500,
            count: 3,
        },
        direction: "egress".into(),
        verdict: "refused".into(),
        pod: Some("shop/api".into()),
        source: "10.0.0.2".parse().unwrap(),
        destination: "192.0.2.25".parse().unwrap(),
        protocol: "TCP".into(),
        port: Some(25),
        icmp_type: None,
        name: None,
        policy: Some("shop/api".into()),
        rule: None,
    };
    let audited = RecordRow {
        seen: Sightings {
            last_seen_ms_ago: 62_000,
            count: 1,
            ..refused.seen.clone()
        },
        verdict: "audited".into(),
        destination: "2001:db8::1".parse().unwrap(),
        protocol: "ICMPv6".into(),
        port: None,
        icmp_type: Some(128),
        name: Some("b.example".into()),
        rule: Some("egressDeny[0]".into()),
        ..refused.clone()
    };
    let refused_by_receiver = RecordRow {
        seen: Sightings {
            last_seen_ms_ago: 63_000,
            count: 2,
            ..refused.seen.clone()
        },
        direction: "ingress".into(),
        source: "10.0.7.9".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        port: Some(6379),
        policy: Some("shop/db".into()),
        ..refused.clone()
    };
    Records {
        summary: RecordsSummary {
            on: true,
            failure: None,
            audited: 0,
            refused: 3,
            overruns: 0,
            refused_packets: Some(3),
            audited_packets: Some(0),
            left_out: 0,
        },
        rows: vec![refused, audited, refused_by_receiver],
        lookups: vec![RefusedLookupRow {
            kind: "lookup".into(),
            seen: Sightings {
                last_seen: "2026-11-30T11:59:57.000Z".into(),
                first_seen: "2026-11-30T11:59:51.000Z".into(),
                last_seen_ms_ago: 3_000,
                first_seen_ms_ago: 9_000,
                count: 5,
            },
            verdict: "refused".into(),
            pod: Some("shop/api".into()),
            source: "10.0.0.2".parse().unwrap(),
            name: "mail.example".into(),
            reason: "namegate: no toFQDNs selector of shop/api matches mail.example".into(),
            policies: vec!["shop/api".into()],
        }],
        withheld: vec![WithheldRow {
            kind: "answer".into(),
            seen: Sightings {
                last_seen: "2026-11-30T11:59:58.000Z".into(),
                first_seen: "2026-11-30T11:59:51.000Z".into(),
                last_seen_ms_ago: 2_000,
                first_seen_ms_ago: 9_000,
                count: 4,
            },
            verdict: "withheld".into(),
            pod: Some("shop/api".into()),
            source: Some("10.0.0.2".parse().unwrap()),
            name: "c.example".into(),
            upstream: "192.0.2.53:53".parse().unwrap(),
            reason: "off-chain".into(),
            why: "it is wrong".into(),
        }],
    }
}

/// The event of a lookup that was refused.
pub fn refused_lookup() -> EventRow {
    EventRow {
        time: "2026-11-30T12:00:00.123Z".into(),
        sequence: 7,
        node: "node-1".into(),
        kind: "lookup".into(),
        verdict: "refused".into(),
        direction: Some("egress".into()),
        source: Some(EventEndRow {
            namespace: Some("shop".into()),
            pod: Some("web".into()),
            labels: vec!["app=web".into()],
            address: Some("10.0.0.2".parse().unwrap()),
            ..EventEndRow::default()
        }),
        lookup: Some(LookupAnswerRow {
            name: "mail.example".into(),
            ..LookupAnswerRow::default()
        }),
        policies: vec!["shop/web-egress".into()],
        reason: Some("namegate: no toFQDNs selector of shop/web matches mail.example".into()),
        ..EventRow::default()
    }
}

/// An agent that is ready, or lacks what is missing.
pub fn status(missing: Option<&str>) -> AgentStatus {
    AgentStatus {
        version: "0.0.0".into(),
        node: "node-1".into(),
        cluster: "default".into(),
        pid: 7,
        uptime_seconds: 3_725,
        supervisor: None,
        ready: missing.is_none(),
        not_ready_because: missing.map(str::to_owned),
        interception: "dnat".into(),
        fail_mode: "open".into(),
        resolvers: vec!["192.0.2.53:53".into()],
        listening: Vec::new(),
        endpoints: vec![EndpointRow {
            endpoint: "shop/api".into(),
            addresses: vec!["10.0.0.2".parse().unwrap()],
            egress: "default-deny".into(),
            ingress: "allow".into(),
            program: Some("1f".into()),
            ingress_program: Some("2e".into()),
            policies: vec!["shop/api".into()],
        }],
        reports: vec![
            ReportRow {
                file: Some("a.yaml".into()),
                object: "Pod shop/api".into(),
                state: "accepted".into(),
                findings: Vec::new(),
            },
            ReportRow {
                file: Some("a.yaml".into()),
                object: "CiliumNetworkPolicy shop/api".into(),
                state: "partial".into(),
                findings: vec!["a.yaml:9:3: not enforced: spec.egress[0].toPorts[0].rules.http: it is not".into()],
            },
        ],
        names: names().len(),
        addresses: names().len(),
        elements: 3,
        heartbeat_gaps: 0,
        records: records().summary,
        state_troubles: Vec::new(),
        install_error: None,
        damage: Vec::new(),
        changed_sysctls: Vec::new(),
        last_repair: None,
        source: None,
        other_clusters: Vec::new(),
        silent_upstreams: Vec::new(),
    }
}
