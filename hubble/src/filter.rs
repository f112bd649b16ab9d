//! The filters of a question, compiled once, and held against each flow.

use std::net::IpAddr;

use ipnet::IpNet;
use prost_types::Timestamp;
use regex::{Regex, RegexBuilder};
use thiserror::Error;

use crate::label_selector::LabelRequirements;
use crate::proto::flow::{Dns, Endpoint, EventTypeFilter, Flow, FlowFilter, Http, layer4, layer7};

/// How large a compiled expression may be, in bytes: patterns come from clients.
const EXPRESSION_LIMIT: usize = 1 << 20;

/// Which flows are asked for.
#[derive(Debug, Default)]
pub struct FlowSelection {
    /// One of them must match; with none, every flow is asked for.
    allowed: Vec<CompiledFilter>,
    /// None of them may match.
    denied: Vec<CompiledFilter>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// A filter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnusableFilter {
    /// It asks for what is not known here.
    #[error("flows are not filtered by {0}: it is not known here")]
    Unknown(&'static str),
    /// A value cannot be read.
    #[error("{field}: {reason}")]
    Value {
        /// Of which field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl FlowSelection {
    /// Compiles the filters of a question.
    pub fn new(
        allowed: &[FlowFilter],
        denied: &[FlowFilter],
        (since, until): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Self, UnusableFilter> {
        let compile = |filters: &[FlowFilter]| filters.iter().map(CompiledFilter::new).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            allowed: compile(allowed)?,
            denied: compile(denied)?,
            since,
            until,
        })
    }

    /// Whether a flow is asked for.
    pub fn takes(&self, flow: &Flow) -> bool {
        let at = |time: &Timestamp| (time.seconds, time.nanos);
        let time = flow.time.as_ref().map(at);
        let not_before = self.since.as_ref().is_none_or(|since| time >= Some(at(since)));
        let not_after = self.until.as_ref().is_none_or(|until| time <= Some(at(until)));
        let allowed = self.allowed.is_empty() || self.allowed.iter().any(|filter| filter.matches(flow));
        not_before && not_after && allowed && !self.denied.iter().any(|filter| filter.matches(flow))
    }
}

/// All of its conditions must hold.
struct CompiledFilter(Vec<FlowCondition>);

type FlowCondition = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

impl std::fmt::Debug for CompiledFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CompiledFilter({} conditions)", self.0.len())
    }
}

impl CompiledFilter {
    fn matches(&self, flow: &Flow) -> bool {
        self.0.iter().all(|condition| condition(flow))
    }

    fn new(filter: &FlowFilter) -> Result<Self, UnusableFilter> {
        // Taken apart whole, so that a field that the interface gets is thought of.
        let FlowFilter {
            uuid,
            source_ip,
            source_ip_xlated,
            source_pod,
            source_fqdn,
            source_label,
            source_service,
            source_workload,
            source_cluster_name,
            destination_ip,
            destination_pod,
            destination_fqdn,
            destination_label,
            destination_service,
            destination_workload,
            destination_cluster_name,
            traffic_direction,
            verdict,
            drop_reason_desc,
            interface,
            event_type,
            http_status_code,
            protocol,
            source_port,
            destination_port,
            reply,
            dns_query,
            source_identity,
            destination_identity,
            http_method,
            http_path,
            http_url,
            http_header,
            tcp_flags,
            node_name,
            node_labels,
            ip_version,
            trace_id,
            ip_trace_id,
            encrypted,
            experimental,
        } = filter;
        for (is_asked, what) in [
            (!source_ip_xlated.is_empty(), "translated addresses"),
            (
                !source_service.is_empty() || !destination_service.is_empty(),
                "services",
            ),
            (
                !source_workload.is_empty() || !destination_workload.is_empty(),
                "workloads",
            ),
            (!interface.is_empty(), "interfaces"),
            (!http_header.is_empty(), "headers of HTTP"),
            (!tcp_flags.is_empty(), "flags of TCP"),
            (!node_labels.is_empty(), "labels of nodes"),
            (!trace_id.is_empty() || !ip_trace_id.is_empty(), "traces"),
            (!encrypted.is_empty(), "encryption"),
            (
                experimental.as_ref().is_some_and(|it| !it.cel_expression.is_empty()),
                "expressions of CEL",
            ),
        ] {
            if is_asked {
                return Err(UnusableFilter::Unknown(what));
            }
        }
        let mut conditions: Vec<FlowCondition> = Vec::new();
        let mut add = |is_asked: bool, condition: FlowCondition| {
            if is_asked {
                conditions.push(condition);
            }
        };

        let values = uuid.clone();
        add(!uuid.is_empty(), Box::new(move |flow| values.contains(&flow.uuid)));
        for (field, patterns, end) in [
            ("source_ip", source_ip, Flow::source_address as AddressOf),
            ("destination_ip", destination_ip, Flow::destination_address),
        ] {
            let networks = each(field, patterns, network)?;
            let matches = move |flow: &Flow| {
                end(flow).is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
            };
            add(!patterns.is_empty(), Box::new(matches));
        }
        for (field, patterns, end) in [
            ("source_pod", source_pod, Flow::source_endpoint as EndpointOf),
            ("destination_pod", destination_pod, Flow::destination_endpoint),
        ] {
            let pods = each(field, patterns, PodPattern::parse)?;
            let matches =
                move |flow: &Flow| end(flow).is_some_and(|endpoint| pods.iter().any(|pod| pod.matches(endpoint)));
            add(!patterns.is_empty(), Box::new(matches));
        }
        for (field, patterns, end) in [
            ("source_label", source_label, Flow::source_endpoint as EndpointOf),
            ("destination_label", destination_label, Flow::destination_endpoint),
        ] {
            let selectors = each(field, patterns, LabelRequirements::parse)?;
            let matches = move |flow: &Flow| {
                let labels = end(flow).map(|endpoint| endpoint.labels.as_slice()).unwrap_or_default();
                selectors.iter().any(|selector| selector.matches(labels))
            };
            add(!patterns.is_empty(), Box::new(matches));
        }
        for (clusters, end) in [
            (source_cluster_name, Flow::source_endpoint as EndpointOf),
            (destination_cluster_name, Flow::destination_endpoint),
        ] {
            let names = clusters.clone();
            let matches = move |flow: &Flow| end(flow).is_some_and(|endpoint| names.contains(&endpoint.cluster_name));
            add(!clusters.is_empty(), Box::new(matches));
        }
        for (identities, end) in [
            (source_identity, Flow::source_endpoint as EndpointOf),
            (destination_identity, Flow::destination_endpoint),
        ] {
            let numbers = identities.clone();
            let matches = move |flow: &Flow| end(flow).is_some_and(|endpoint| numbers.contains(&endpoint.identity));
            add(!identities.is_empty(), Box::new(matches));
        }
        let names = each("source_fqdn", source_fqdn, name_pattern)?;
        let matches = move |flow: &Flow| any_matches(&names, &flow.source_names);
        add(!source_fqdn.is_empty(), Box::new(matches));
        let names = each("destination_fqdn", destination_fqdn, name_pattern)?;
        let matches = move |flow: &Flow| any_matches(&names, &flow.destination_names);
        add(!destination_fqdn.is_empty(), Box::new(matches));
        for (field, ports, is_source) in [
            ("source_port", source_port, true),
            ("destination_port", destination_port, false),
        ] {
            let numbers = each(field, ports, |text| {
                text.parse::<u16>().map_err(|_| format!("{text:?} is no port"))
            })?;
            let matches = move |flow: &Flow| {
                let ports = flow.ports();
                ports.is_some_and(|(source, destination)| {
                    let port = if is_source { source } else { destination };
                    numbers.iter().any(|number| u32::from(*number) == port)
                })
            };
            add(!ports.is_empty(), Box::new(matches));
        }
        let values = traffic_direction.clone();
        let matches = move |flow: &Flow| values.contains(&flow.traffic_direction);
        add(!traffic_direction.is_empty(), Box::new(matches));
        let values = verdict.clone();
        add(
            !verdict.is_empty(),
            Box::new(move |flow| values.contains(&flow.verdict)),
        );
        let values = drop_reason_desc.clone();
        let matches = move |flow: &Flow| values.contains(&flow.drop_reason_desc);
        add(!drop_reason_desc.is_empty(), Box::new(matches));
        let kinds = event_type.clone();
        let matches = move |flow: &Flow| kinds.iter().any(|kind| is_of_type(flow, kind));
        add(!event_type.is_empty(), Box::new(matches));
        let values = reply.clone();
        let matches = move |flow: &Flow| flow.is_reply.is_some_and(|is_reply| values.contains(&is_reply));
        add(!reply.is_empty(), Box::new(matches));
        let values = ip_version.clone();
        let matches = move |flow: &Flow| flow.ip.as_ref().is_some_and(|ip| values.contains(&ip.ip_version));
        add(!ip_version.is_empty(), Box::new(matches));
        let protocols = each("protocol", protocol, known_protocol)?;
        let matches = move |flow: &Flow| protocols.iter().any(|protocol| is_of_protocol(flow, protocol));
        add(!protocol.is_empty(), Box::new(matches));
        let nodes = each("node_name", node_name, node_pattern)?;
        let matches = move |flow: &Flow| nodes.iter().any(|node| node.is_match(&flow.node_name));
        add(!node_name.is_empty(), Box::new(matches));
        let queries = each("dns_query", dns_query, expression)?;
        let matches = move |flow: &Flow| {
            flow.dns()
                .is_some_and(|dns| queries.iter().any(|query| query.is_match(&dns.query)))
        };
        add(!dns_query.is_empty(), Box::new(matches));

        let methods = http_method.clone();
        let matches = move |flow: &Flow| {
            let is_method = |http: &Http| methods.iter().any(|method| method.eq_ignore_ascii_case(&http.method));
            flow.http().is_some_and(is_method)
        };
        add(!http_method.is_empty(), Box::new(matches));
        let urls = each("http_url", http_url, expression)?;
        let matches = move |flow: &Flow| {
            flow.http()
                .is_some_and(|http| urls.iter().any(|url| url.is_match(&http.url)))
        };
        add(!http_url.is_empty(), Box::new(matches));
        let paths = each("http_path", http_path, expression)?;
        let matches = move |flow: &Flow| {
            let path = flow.http().map(|http| path_of(&http.url));
            path.is_some_and(|path| paths.iter().any(|expression| expression.is_match(path)))
        };
        add(!http_path.is_empty(), Box::new(matches));
        let codes = each("http_status_code", http_status_code, status_pattern)?;
        let matches = move |flow: &Flow| {
            let code = flow
                .http()
                .filter(|http| http.code > 0)
                .map(|http| http.code.to_string());
            code.is_some_and(|code| codes.iter().any(|pattern| pattern.matches(&code)))
        };
        add(!http_status_code.is_empty(), Box::new(matches));
        Ok(Self(conditions))
    }
}

type AddressOf = fn(&Flow) -> Option<IpAddr>;
type EndpointOf = fn(&Flow) -> Option<&Endpoint>;

/// What filters look at.
impl Flow {
    fn source_endpoint(&self) -> Option<&Endpoint> {
        self.source.as_ref()
    }

    fn destination_endpoint(&self) -> Option<&Endpoint> {
        self.destination.as_ref()
    }

    fn source_address(&self) -> Option<IpAddr> {
        self.ip.as_ref().and_then(|ip| ip.source.parse().ok())
    }

    fn destination_address(&self) -> Option<IpAddr> {
        self.ip.as_ref().and_then(|ip| ip.destination.parse().ok())
    }

    /// The ports of both ends, where the protocol has some.
    fn ports(&self) -> Option<(u32, u32)> {
        match self.l4.as_ref()?.protocol.as_ref()? {
            layer4::Protocol::Tcp(it) => Some((it.source_port, it.destination_port)),
            layer4::Protocol::Udp(it) => Some((it.source_port, it.destination_port)),
            layer4::Protocol::Sctp(it) => Some((it.source_port, it.destination_port)),
            layer4::Protocol::IcmPv4(_) | layer4::Protocol::IcmPv6(_) => None,
        }
    }

    fn record(&self) -> Option<&layer7::Record> {
        self.l7.as_ref()?.record.as_ref()
    }

    fn dns(&self) -> Option<&Dns> {
        match self.record()? {
            layer7::Record::Dns(dns) => Some(dns),
            layer7::Record::Http(_) => None,
        }
    }

    fn http(&self) -> Option<&Http> {
        match self.record()? {
            layer7::Record::Http(http) => Some(http),
            layer7::Record::Dns(_) => None,
        }
    }
}

/// Reads every value of a field.
fn each<T>(
    field: &'static str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, UnusableFilter> {
    let read = texts.iter().map(|text| read(text));
    read.collect::<Result<_, _>>()
        .map_err(|reason| UnusableFilter::Value { field, reason })
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(|address: IpAddr| IpNet::from(address));
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text:?} is no address and no network"))
}

/// `NAMESPACE/PREFIX`, `NAMESPACE/`, `/PREFIX` in any namespace, or `PREFIX` in the namespace
/// `default`.
struct PodPattern {
    namespace: String,
    prefix: String,
}

impl PodPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (namespace, prefix) = text.split_once('/').unwrap_or(("default", text));
        match text.is_empty() {
            true => Err("a pod has a name".into()),
            false => Ok(Self {
                namespace: namespace.to_owned(),
                prefix: prefix.to_owned(),
            }),
        }
    }

    fn matches(&self, endpoint: &Endpoint) -> bool {
        let is_pod = !endpoint.namespace.is_empty() || !endpoint.pod_name.is_empty();
        let in_namespace = self.namespace.is_empty() || self.namespace == endpoint.namespace;
        is_pod && in_namespace && endpoint.pod_name.starts_with(&self.prefix)
    }
}

fn expression(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(EXPRESSION_LIMIT)
        .build()
        .map_err(|error| error.to_string())
}

/// A name in which a star stands for any number of characters.
fn name_pattern(text: &str) -> Result<Regex, String> {
    let text = text.trim().trim_end_matches('.').to_ascii_lowercase();
    let is_known = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '.' | '-' | '_' | '*');
    if text.is_empty() || !text.chars().all(is_known) {
        return Err(format!("{text:?} is no name and no pattern"));
    }
    expression(&format!(r"\A{}\z", starred(&text)))
}

/// `NODE`, or `CLUSTER/NODE`, either with stars; an empty part matches any.
fn node_pattern(text: &str) -> Result<Regex, String> {
    let (cluster, node) = text.split_once('/').unwrap_or(("*", text));
    if text.is_empty() || node.contains('/') {
        return Err(format!("{text:?} is no node, as in NODE or CLUSTER/NODE"));
    }
    let part = |part: &str| match part.is_empty() {
        true => starred("*"),
        false => starred(part),
    };
    expression(&format!(r"\A{}/{}\z", part(cluster), part(node)))
}

fn starred(text: &str) -> String {
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    parts.join("[-._0-9A-Za-z]*")
}

fn any_matches(patterns: &[Regex], names: &[String]) -> bool {
    names
        .iter()
        .any(|name| patterns.iter().any(|pattern| pattern.is_match(name)))
}

fn is_of_type(flow: &Flow, kind: &EventTypeFilter) -> bool {
    flow.event_type.as_ref().is_some_and(|of| {
        let type_matches = kind.r#type == 0 || kind.r#type == of.r#type;
        type_matches && (!kind.match_sub_type || kind.sub_type == of.sub_type)
    })
}

fn known_protocol(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "tcp" | "udp" | "sctp" | "icmp" | "icmpv4" | "icmpv6" | "dns" | "http" => Ok(text),
        _ => Err(format!("{text:?} is no protocol that is known here")),
    }
}

fn is_of_protocol(flow: &Flow, protocol: &str) -> bool {
    let of_packet = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(layer4::Protocol::Tcp(_)) => protocol == "tcp",
        Some(layer4::Protocol::Udp(_)) => protocol == "udp",
        Some(layer4::Protocol::Sctp(_)) => protocol == "sctp",
        Some(layer4::Protocol::IcmPv4(_)) => matches!(protocol, "icmp" | "icmpv4"),
        Some(layer4::Protocol::IcmPv6(_)) => matches!(protocol, "icmp" | "icmpv6"),
        None => false,
    };
    of_packet || (protocol == "dns" && flow.dns().is_some()) || (protocol == "http" && flow.http().is_some())
}

/// The path of a URL, without the query.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.split('?').next().unwrap_or(path)
}

/// `404`, or `4+`: whatever begins so.
struct StatusPattern {
    digits: String,
    is_prefix: bool,
}

fn status_pattern(text: &str) -> Result<StatusPattern, String> {
    let digits = text.strip_suffix('+').unwrap_or(text);
    let is_number = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => Ok(StatusPattern {
            digits: digits.to_owned(),
            is_prefix: digits.len() < text.len(),
        }),
        false => Err(format!("{text:?} is no status, as in 404 or 4+")),
    }
}

impl StatusPattern {
    fn matches(&self, code: &str) -> bool {
        match self.is_prefix {
            true => code.starts_with(&self.digits),
            false => code == self.digits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::samples::{SCENE, answered_lookup, audited_flow, refused_lookup};
    use crate::flow::{ACCESS_LOG, flow};
    use crate::proto::flow::{FlowFilter, Verdict, flow_filter};

    fn flows() -> [Flow; 3] {
        [refused_lookup(), answered_lookup(), audited_flow()].map(|row| flow(&row, SCENE).unwrap())
    }

    /// Which of a refused lookup, an answer and an audited flow to port 25 are taken.
    fn taken(change: impl FnOnce(&mut FlowFilter)) -> [bool; 3] {
        let mut filter = FlowFilter::default();
        change(&mut filter);
        let selection = FlowSelection::new(&[filter], &[], (None, None)).unwrap();
        flows().map(|flow| selection.takes(&flow))
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_field_selects_what_it_says() {
        assert_eq!(taken(|_| {}), [true; 3]);
        let source = |pods: &[&str]| taken(|filter| filter.source_pod = texts(pods));
        assert_eq!(source(&["shop/web"]), [true, false, true]);
        assert_eq!(source(&["shop/"]), [true, false, true]);
        assert_eq!(source(&["/we", "other/x"]), [true, false, true]);
        assert_eq!(source(&["web"]), [false; 3], "in the namespace default");
        let labels = |labels: &[&str]| taken(|filter| filter.destination_label = texts(labels));
        assert_eq!(labels(&["app=web"]), [false, true, false]);
        assert_eq!(labels(&["reserved:world"]), [false, false, true]);
        let names = |names: &[&str]| taken(|filter| filter.destination_fqdn = texts(names));
        assert_eq!(names(&["*.example"]), [false, false, true]);
        assert_eq!(names(&["mail.*", "x"]), [false, false, true]);
        assert_eq!(names(&["ail.example"]), [false; 3]);
        assert_eq!(
            taken(|filter| filter.dns_query = texts(&["^mail"])),
            [true, false, false]
        );
        let networks = |networks: &[&str]| taken(|filter| filter.destination_ip = texts(networks));
        assert_eq!(networks(&["2001:db8::/32"]), [false, false, true]);
        assert_eq!(networks(&["10.0.0.2"]), [false, true, false]);
        assert_eq!(
            taken(|filter| filter.destination_port = texts(&["25"])),
            [false, false, true]
        );
        assert_eq!(taken(|filter| filter.protocol = texts(&["DNS"])), [true, true, false]);
        assert_eq!(taken(|filter| filter.reply = vec![true]), [false, true, false]);
        let verdict = i32::from(Verdict::Audit);
        assert_eq!(taken(|filter| filter.verdict = vec![verdict]), [false, false, true]);
        let l7 = EventTypeFilter {
            r#type: ACCESS_LOG,
            ..EventTypeFilter::default()
        };
        assert_eq!(taken(|filter| filter.event_type = vec![l7]), [true, true, false]);
        let nodes = |nodes: &[&str]| taken(|filter| filter.node_name = texts(nodes));
        assert_eq!(nodes(&["node-*"]), [true; 3]);
        assert_eq!(nodes(&["default/"]), [true; 3]);
        assert_eq!(nodes(&["west/node-1"]), [false; 3]);
    }

    #[test]
    fn all_fields_of_a_filter_must_match_and_one_filter_is_enough() {
        let both = taken(|filter| {
            filter.source_pod = texts(&["shop/web"]);
            filter.protocol = texts(&["dns"]);
        });
        assert_eq!(both, [true, false, false]);
        let pod = |source: bool| {
            let pods = texts(&["shop/web"]);
            match source {
                true => FlowFilter {
                    source_pod: pods,
                    ..FlowFilter::default()
                },
                false => FlowFilter {
                    destination_pod: pods,
                    ..FlowFilter::default()
                },
            }
        };
        let dns = FlowFilter {
            protocol: texts(&["dns"]),
            ..FlowFilter::default()
        };
        let either = FlowSelection::new(&[pod(true), pod(false)], &[], (None, None)).unwrap();
        assert_eq!(flows().map(|flow| either.takes(&flow)), [true; 3]);
        let but_dns = FlowSelection::new(&[pod(true), pod(false)], &[dns], (None, None)).unwrap();
        assert_eq!(flows().map(|flow| but_dns.takes(&flow)), [false, false, true]);
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let now = flows()[0].time.unwrap().seconds;
        let later = FlowSelection::new(&[], &[], (at(now + 1), None)).unwrap();
        let until = FlowSelection::new(&[], &[], (at(now), at(now + 1))).unwrap();
        assert_eq!((later.takes(&flows()[0]), until.takes(&flows()[0])), (false, true));
    }

    #[test]
    fn what_is_not_known_is_refused_and_not_passed_over() {
        let refused = |change: fn(&mut FlowFilter)| {
            let mut filter = FlowFilter::default();
            change(&mut filter);
            FlowSelection::new(&[filter], &[], (None, None))
                .unwrap_err()
                .to_string()
        };
        assert!(refused(|filter| filter.source_service = texts(&["a/b"])).contains("services"));
        let cel = || flow_filter::Experimental {
            cel_expression: texts(&["true"]),
        };
        let filter = FlowFilter {
            experimental: Some(cel()),
            ..FlowFilter::default()
        };
        assert!(FlowSelection::new(&[], &[filter], (None, None)).is_err());
        assert!(refused(|filter| filter.source_ip = texts(&["x"])).starts_with("source_ip: \"x\""));
        assert!(refused(|filter| filter.dns_query = texts(&["("])).starts_with("dns_query: "));
        assert!(refused(|filter| filter.dns_query = texts(&["(a{1000}){1000}"])).contains("size limit"));
        assert!(refused(|filter| filter.protocol = texts(&["kafka"])).contains("kafka"));
    }

    #[test]
    fn requests_are_selected_by_method_path_and_status() {
        let mut row = audited_flow();
        row.request = Some(api::RequestRow {
            method: Some("GET".into()),
            host: "a.example".into(),
            path: Some("/v1/x?y".into()),
            status: Some(404),
        });
        let flow = flow(&row, SCENE).unwrap();
        let takes = |change: fn(&mut FlowFilter)| {
            let mut filter = FlowFilter::default();
            change(&mut filter);
            FlowSelection::new(&[filter], &[], (None, None)).unwrap().takes(&flow)
        };
        assert!(takes(|filter| filter.http_method = texts(&["get"])));
        assert!(takes(|filter| filter.http_path = texts(&["^/v1/x$"])));
        assert!(takes(|filter| filter.http_url = texts(&["a.example/v1"])));
        assert!(takes(|filter| filter.http_status_code = texts(&["4+"])));
        assert!(!takes(|filter| filter.http_status_code = texts(&["40"])));
    }
}
