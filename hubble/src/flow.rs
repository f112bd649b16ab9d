//! An event as Hubble says it.
//!
//! Hubble's words for what happens to a packet are those of Cilium's datapath. A flow that policies
//! decided about is a *policy verdict* there, a lookup a record of the DNS proxy, a request one of
//! the HTTP proxy.

use std::net::IpAddr;

use api::{EventEndRow, EventRow, LookupAnswerRow, RequestRow};
use prost_types::Timestamp;

use crate::proto::flow as proto;
use crate::proto::flow::{
    CiliumEventType, Dns, DropReason, Emitter, Endpoint, Flow, FlowType, Http, IcmPv4, IcmPv6, Ip, IpVersion,
    L7FlowType, Layer4, Layer7, Policy, Sctp, Tcp, TrafficDirection, Udp, Verdict, layer4, layer7,
};

/// Cilium's number for a verdict of policies (`MessageTypePolicyVerdict`).
pub const POLICY_VERDICT: i32 = 5;
/// Cilium's number for a record of its proxies (`MessageTypeAccessLog`).
pub const ACCESS_LOG: i32 = 129;
/// No rule matched (`PolicyMatchNone`).
const MATCH_NONE: u32 = 0;
/// A rule about peer and port matched (`PolicyMatchL3L4`).
const MATCH_L3_L4: u32 = 2;
/// The identity of what is no endpoint (`reserved:world`).
const WORLD: u32 = 2;
/// The code of an answer "no such name" (RFC 1035).
const NXDOMAIN: u32 = 3;
/// The code of an answer "the server failed" (RFC 1035).
const SERVFAIL: u32 = 2;

/// Where a flow was seen, and by whom.
#[derive(Clone, Copy)]
pub struct FlowScene<'s> {
    /// The name of the cluster.
    pub cluster: &'s str,
    /// The version of the agent.
    pub version: &'s str,
    /// The kind of the policy of this name, where it is known.
    pub kind_of: &'s dyn Fn(&str) -> Option<String>,
}

/// The flow; `None` where the event is news of a policy or of the agent.
pub fn flow(row: &EventRow, scene: FlowScene<'_>) -> Option<Flow> {
    let flow = match (&row.lookup, &row.request) {
        (Some(lookup), _) => of_lookup(row, lookup, scene),
        (None, Some(request)) => of_request(row, request, scene),
        (None, None) if row.kind == "flow" => of_packet(row, scene),
        (None, None) => return None,
    };
    Some(flow)
}

/// The part that all kinds have.
fn common(row: &EventRow, scene: FlowScene<'_>) -> Flow {
    let verdict = match row.verdict.as_str() {
        "allowed" => Verdict::Forwarded,
        "refused" => Verdict::Dropped,
        "audited" => Verdict::Audit,
        "failed" => Verdict::Error,
        _ => Verdict::Unknown,
    };
    let direction = match row.direction.as_deref() {
        Some("ingress") => TrafficDirection::Ingress,
        Some("egress") => TrafficDirection::Egress,
        _ => TrafficDirection::Unknown,
    };
    let drop_reason = match verdict {
        Verdict::Dropped => DropReason::PolicyDenied,
        _ => DropReason::Unknown,
    };
    let mut flow = Flow {
        time: timestamp(row),
        uuid: format!("{}/{}/{}", scene.cluster, row.node, row.sequence),
        emitter: Some(Emitter {
            name: "Namegate".into(),
            version: scene.version.into(),
        }),
        verdict: verdict.into(),
        drop_reason: i32::from(drop_reason).cast_unsigned(),
        drop_reason_desc: drop_reason.into(),
        ip: ip(row),
        source: Some(endpoint(row.source.as_ref(), scene)),
        destination: Some(endpoint(row.destination.as_ref(), scene)),
        node_name: format!("{}/{}", scene.cluster, row.node),
        source_names: row.source.as_ref().map(|end| end.names.clone()).unwrap_or_default(),
        destination_names: row
            .destination
            .as_ref()
            .map(|end| end.names.clone())
            .unwrap_or_default(),
        traffic_direction: direction.into(),
        is_reply: Some(false),
        ..Flow::default()
    };
    let policies: Vec<Policy> = row.policies.iter().map(|name| policy(name, scene)).collect();
    match (direction, verdict) {
        (TrafficDirection::Egress, Verdict::Forwarded) => flow.egress_allowed_by = policies,
        (TrafficDirection::Egress, _) => flow.egress_denied_by = policies,
        (TrafficDirection::Ingress, Verdict::Forwarded) => flow.ingress_allowed_by = policies,
        (TrafficDirection::Ingress, _) => flow.ingress_denied_by = policies,
        (TrafficDirection::Unknown, _) => {}
    }
    flow
}

/// When it happened; `None` where the row's time cannot be read.
pub(crate) fn timestamp(row: &EventRow) -> Option<Timestamp> {
    row.time.parse().ok()
}

fn of_packet(row: &EventRow, scene: FlowScene<'_>) -> Flow {
    let decides = row.rule.is_some() || row.verdict == "allowed";
    let mut summary = row.protocol.clone().unwrap_or_default();
    if let Some(totals) = &row.totals {
        summary += &format!(" {totals}");
    }
    if let Some(rule) = &row.rule {
        summary += &format!(" by {rule}");
    }
    Flow {
        r#type: FlowType::L3L4.into(),
        event_type: event_type(POLICY_VERDICT),
        policy_match_type: if decides { MATCH_L3_L4 } else { MATCH_NONE },
        l4: layer4(row),
        summary,
        ..common(row, scene)
    }
}

/// A lookup is one event here: a question that was refused, or an answer.
fn of_lookup(row: &EventRow, lookup: &LookupAnswerRow, scene: FlowScene<'_>) -> Flow {
    let query = format!("{}.", lookup.name);
    let reason = row
        .reason
        .as_deref()
        .map(|reason| reason.strip_prefix("namegate: ").unwrap_or(reason));
    let addresses: Vec<String> = lookup.addresses.iter().map(ToString::to_string).collect();
    let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let answered = matches!(row.verdict.as_str(), "allowed" | "failed");
    let (kind, rcode, summary) = match row.verdict.as_str() {
        "allowed" => {
            let answer = format!("\"{}\"", addresses.join(","));
            (L7FlowType::Response, 0, format!("DNS Answer {answer} (Proxy {query})"))
        }
        "failed" => (
            L7FlowType::Response,
            SERVFAIL,
            format!("DNS Answer of {query} withheld{because}"),
        ),
        _ => (L7FlowType::Request, NXDOMAIN, format!("DNS Query {query}{because}")),
    };
    let mut row = row.clone();
    if let Some(upstream) = lookup.upstream {
        row.destination = Some(EventEndRow {
            address: Some(upstream.ip()),
            port: Some(upstream.port()),
            ..EventEndRow::default()
        });
    }
    if answered {
        // An answer goes from the resolver to who asked, as a reply.
        std::mem::swap(&mut row.source, &mut row.destination);
    }
    Flow {
        r#type: FlowType::L7.into(),
        event_type: event_type(ACCESS_LOG),
        l7: Some(Layer7 {
            r#type: kind.into(),
            record: Some(layer7::Record::Dns(Dns {
                query,
                ips: addresses,
                observation_source: "proxy".into(),
                rcode,
            })),
        }),
        is_reply: Some(answered),
        summary,
        ..common(&row, scene)
    }
}

/// A request of HTTP; where only the server's name is known, a flow with that name in its summary:
/// Hubble has no record for it.
fn of_request(row: &EventRow, request: &RequestRow, scene: FlowScene<'_>) -> Flow {
    let because = row
        .reason
        .as_deref()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let Some(method) = &request.method else {
        return Flow {
            summary: format!("TLS server name {}{because}", request.host),
            ..of_packet(row, scene)
        };
    };
    let url = format!("http://{}{}", request.host, request.path.as_deref().unwrap_or("/"));
    let summary = format!("HTTP/1.1 {method} {url}{because}");
    Flow {
        r#type: FlowType::L7.into(),
        event_type: event_type(ACCESS_LOG),
        l4: layer4(row),
        l7: Some(Layer7 {
            r#type: L7FlowType::Request.into(),
            record: Some(layer7::Record::Http(Http {
                code: request.status.unwrap_or_default().into(),
                method: method.clone(),
                url,
            })),
        }),
        summary,
        ..common(row, scene)
    }
}

fn event_type(kind: i32) -> Option<CiliumEventType> {
    Some(CiliumEventType {
        r#type: kind,
        sub_type: 0,
    })
}

fn ip(row: &EventRow) -> Option<Ip> {
    let address = |end: &Option<EventEndRow>| end.as_ref().and_then(|end| end.address);
    let (source, destination) = (address(&row.source), address(&row.destination));
    let version = match source.or(destination)? {
        IpAddr::V4(_) => IpVersion::IPv4,
        IpAddr::V6(_) => IpVersion::IPv6,
    };
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    Some(Ip {
        source: text(source),
        destination: text(destination),
        ip_version: version.into(),
    })
}

fn layer4(row: &EventRow) -> Option<Layer4> {
    let port = |end: &Option<EventEndRow>| end.as_ref().and_then(|end| end.port).unwrap_or_default().into();
    let (source_port, destination_port) = (port(&row.source), port(&row.destination));
    let kind = row.icmp_type.unwrap_or_default().into();
    // A row has no code of an ICMP message.
    let code = 0;
    let protocol = match row.protocol.as_deref()? {
        "TCP" => layer4::Protocol::Tcp(Tcp {
            source_port,
            destination_port,
        }),
        "UDP" => layer4::Protocol::Udp(Udp {
            source_port,
            destination_port,
        }),
        "SCTP" => layer4::Protocol::Sctp(Sctp {
            source_port,
            destination_port,
        }),
        "ICMP" => layer4::Protocol::IcmPv4(IcmPv4 { r#type: kind, code }),
        "ICMPv6" => layer4::Protocol::IcmPv6(IcmPv6 { r#type: kind, code }),
        _ => return None,
    };
    Some(Layer4 {
        protocol: Some(protocol),
    })
}

fn endpoint(end: Option<&EventEndRow>, scene: FlowScene<'_>) -> Endpoint {
    let Some(end) = end else {
        return Endpoint::default();
    };
    let (Some(namespace), Some(pod)) = (&end.namespace, &end.pod) else {
        return Endpoint {
            identity: WORLD,
            labels: vec!["reserved:world".into()],
            ..Endpoint::default()
        };
    };
    let mut labels: Vec<String> = end.labels.iter().map(|label| format!("k8s:{label}")).collect();
    labels.push(format!("k8s:io.kubernetes.pod.namespace={namespace}"));
    Endpoint {
        // Identities of workloads are Cilium's; a node without it has none.
        identity: 0,
        cluster_name: scene.cluster.into(),
        namespace: namespace.clone(),
        labels,
        pod_name: pod.clone(),
    }
}

/// `NAMESPACE/NAME`, or the name of a policy of the whole cluster.
fn policy(name: &str, scene: FlowScene<'_>) -> Policy {
    let (namespace, own) = name.split_once('/').unwrap_or(("", name));
    proto::Policy {
        name: own.into(),
        namespace: namespace.into(),
        // The client leaves out policies without one.
        kind: (scene.kind_of)(name).unwrap_or_else(|| "Policy".into()),
    }
}

#[cfg(test)]
pub(crate) mod samples {
    pub(crate) use api::examples::refused_lookup;

    use super::*;

    pub(crate) const SCENE: FlowScene<'static> = FlowScene {
        cluster: "default",
        version: "0.0.0",
        kind_of: &|name| name.contains('/').then(|| "CiliumNetworkPolicy".into()),
    };

    pub(crate) fn answered_lookup() -> EventRow {
        EventRow {
            verdict: "allowed".into(),
            lookup: Some(LookupAnswerRow {
                name: "api.example".into(),
                upstream: Some(([10, 53, 0, 53], 53).into()),
                addresses: vec![[198, 51, 100, 7].into()],
            }),
            reason: None,
            ..refused_lookup()
        }
    }

    pub(crate) fn audited_flow() -> EventRow {
        EventRow {
            sequence: 8,
            kind: "flow".into(),
            verdict: "audited".into(),
            lookup: None,
            reason: None,
            destination: Some(EventEndRow {
                address: Some("2001:db8::1".parse().unwrap()),
                port: Some(25),
                names: vec!["mail.example".into()],
                ..EventEndRow::default()
            }),
            protocol: Some("TCP".into()),
            rule: Some("spec.egressDeny[0]".into()),
            ..refused_lookup()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{SCENE, answered_lookup, audited_flow, refused_lookup};
    use super::*;

    fn dns(flow: &Flow) -> &Dns {
        match flow.l7.as_ref().and_then(|l7| l7.record.as_ref()) {
            Some(layer7::Record::Dns(dns)) => dns,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refused_lookup_is_a_dropped_query_with_its_reason_and_policy() {
        let flow = flow(&refused_lookup(), SCENE).unwrap();
        assert_eq!(
            (flow.verdict(), flow.drop_reason_desc()),
            (Verdict::Dropped, DropReason::PolicyDenied)
        );
        assert_eq!(dns(&flow).query, "mail.example.");
        assert_eq!(
            flow.summary,
            "DNS Query mail.example.: no toFQDNs selector of shop/web matches mail.example"
        );
        let policy = &flow.egress_denied_by[0];
        let told = [&policy.namespace, &policy.name, &policy.kind].map(String::as_str);
        assert_eq!(told, ["shop", "web-egress", "CiliumNetworkPolicy"]);
        assert_eq!(
            (flow.node_name.as_str(), flow.is_reply),
            ("default/node-1", Some(false))
        );
        let time = flow.time.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_796_040_000, 123_000_000));
    }

    #[test]
    fn an_answer_goes_from_the_resolver_to_who_asked() {
        let flow = flow(&answered_lookup(), SCENE).unwrap();
        assert_eq!((flow.verdict(), flow.is_reply), (Verdict::Forwarded, Some(true)));
        let ip = flow.ip.as_ref().unwrap();
        assert_eq!(
            (ip.source.as_str(), ip.destination.as_str()),
            ("10.53.0.53", "10.0.0.2")
        );
        assert_eq!(flow.destination.as_ref().unwrap().pod_name, "web");
        assert_eq!(dns(&flow).ips, ["198.51.100.7"]);
        assert_eq!(flow.egress_allowed_by.len(), 1);
    }

    #[test]
    fn an_audited_flow_names_the_policy_that_would_refuse_it() {
        let flow = flow(&audited_flow(), SCENE).unwrap();
        assert_eq!(flow.verdict(), Verdict::Audit);
        assert_eq!(flow.event_type.unwrap().r#type, POLICY_VERDICT);
        assert_eq!(flow.egress_denied_by[0].name, "web-egress");
        assert_eq!(flow.destination_names, ["mail.example"]);
        assert_eq!(flow.destination.unwrap().labels, ["reserved:world"]);
        assert_eq!(flow.summary, "TCP by spec.egressDeny[0]");
        let Some(layer4::Protocol::Tcp(tcp)) = flow.l4.unwrap().protocol else {
            panic!("no TCP");
        };
        assert_eq!(tcp.destination_port, 25);
        assert_eq!(
            flow.source.unwrap().labels,
            ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]
        );
    }

    #[test]
    fn a_request_is_one_of_http_and_a_server_name_a_flow() {
        let mut row = audited_flow();
        row.kind = "request".into();
        row.request = Some(RequestRow {
            method: Some("GET".into()),
            host: "mail.example".into(),
            path: Some("/in?x".into()),
            status: Some(403),
        });
        let told = flow(&row, SCENE).unwrap();
        let Some(layer7::Record::Http(http)) = told.l7.unwrap().record else {
            panic!("no HTTP");
        };
        assert_eq!((http.code, http.url.as_str()), (403, "http://mail.example/in?x"));
        row.request.as_mut().unwrap().method = None;
        let told = flow(&row, SCENE).unwrap();
        assert_eq!(told.summary, "TLS server name mail.example");
        assert!(told.l7.is_none());
    }

    #[test]
    fn news_are_no_flows() {
        let news = EventRow {
            kind: "policy".into(),
            lookup: None,
            ..refused_lookup()
        };
        assert_eq!(flow(&news, SCENE), None);
    }
}
