//! Figures that are read when scraped → metric families.

use std::collections::BTreeMap;

use cluster::ReportState;
use cluster::kubernetes::health::SourceFigures;
use cluster::kubernetes::resources::KINDS;
use enforcer::audit::DamageKind;
use enforcer::writer::WriterStats;
use policy::{Direction, PerDirection};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::inspect::{Figures, OtherClusterGauges};

/// Taken apart exhaustively, so that a figure that is not shown does not compile.
pub(super) fn families(figures: &Figures, started: f64) -> Vec<MetricFamily> {
    let Figures {
        writer,
        names,
        addresses,
        evicted_names,
        left_out_addresses,
        endpoints_selected,
        endpoints,
        programs,
        policies,
        lookups_in_flight,
        inspected_connections,
        refused_packets,
        record_overruns,
        silent_upstreams,
        source,
        other_clusters,
        deaths,
        unwritten_files,
        repairs,
        damage,
        settings,
    } = figures.clone();
    let repairs: Vec<_> = DamageKind::ALL
        .iter()
        .zip(repairs)
        .map(|(kind, count)| (kind.as_str(), count))
        .collect();
    let WriterStats {
        transactions,
        failures,
        elements_written,
        elements,
        capacity,
        evictions,
        installs,
        gaps,
    } = writer;
    // The order of `Figures::policies`.
    let states = [
        ReportState::Accepted,
        ReportState::Partial,
        ReportState::KeptLastGood,
        ReportState::Rejected,
    ];
    let policies: Vec<_> = states
        .iter()
        .zip(policies)
        .map(|(state, count)| (state.as_str(), count as u64))
        .collect();
    let mut families = vec![
        counter(
            "netlink_transactions_total",
            "Netlink transactions that the kernel committed",
            transactions,
        ),
        counter(
            "netlink_failures_total",
            "Netlink transactions that the kernel refused or did not acknowledge",
            failures,
        ),
        counter(
            "elements_written_total",
            "Set elements added or renewed in the kernel",
            elements_written,
        ),
        counter("ruleset_installs_total", "Rulesets installed", installs),
        counter(
            "set_evictions_total",
            "Set elements that gave way to others in a full set, before their time",
            evictions,
        ),
        counter(
            "heartbeat_gaps_total",
            "Times at which the heartbeat had lapsed in fail-mode open, so that lookups went past the agent",
            gaps,
        ),
        family(
            MetricType::COUNTER,
            "repairs_total",
            "Repairs of what others had changed in what the agent keeps in the kernel, by kind",
            "kind",
            &repairs,
        ),
        gauge(
            "damage",
            "What others have changed in what the agent keeps in the kernel, and is not repaired",
            damage as u64,
        ),
        gauge(
            "changed_sysctls",
            "Sysctls that policy relies on and that somebody has set to 0 since the agent's start",
            settings as u64,
        ),
        gauge("set_elements", "Set elements believed live in the kernel", elements),
        gauge(
            "set_capacity",
            "Set elements that the learned sets may hold in all",
            capacity,
        ),
        gauge("ledger_names", "Names with live leases", names as u64),
        gauge(
            "ledger_addresses",
            "Name-address pairs with live leases",
            addresses as u64,
        ),
        counter(
            "ledger_evictions_total",
            "Names with live leases that were forgotten to make room",
            evicted_names,
        ),
        counter(
            "ledger_addresses_left_out_total",
            "Addresses of answers that were not opened, because a name may not hold so many",
            left_out_addresses,
        ),
        family(GAUGE, "policies", "Policies by state", "state", &policies),
        family(
            GAUGE,
            "endpoints",
            "Local endpoints, by whether a policy selects them",
            "selected",
            &[
                ("true", endpoints_selected as u64),
                ("false", endpoints.saturating_sub(endpoints_selected) as u64),
            ],
        ),
        gauge(
            "unwritten_state_files",
            "Files of the state directory that cannot be written",
            unwritten_files as u64,
        ),
        gauge("programs", "Distinct compiled programs", programs as u64),
        gauge("lookups_in_flight", "Lookups in flight", lookups_in_flight as u64),
        gauge(
            "inspected_connections",
            "Connections that are looked into and open",
            inspected_connections as u64,
        ),
        refused(refused_packets),
        gauge(
            "silent_upstreams",
            "Upstreams that do not answer, and are asked after others",
            silent_upstreams as u64,
        ),
        counter(
            "record_overruns_total",
            "How often records of packets were lost because too many came at once",
            record_overruns,
        ),
        counter(
            "agent_deaths_total",
            "Agents that died under the supervisor that runs this one",
            u64::from(deaths),
        ),
        family(
            GAUGE,
            "build_info",
            "Always 1; the version is in the label",
            "version",
            &[(env!("CARGO_PKG_VERSION"), 1)],
        ),
        process_start(started),
    ];
    families.extend(source.iter().flat_map(of_source));
    families.extend(of_other_clusters(&other_clusters));
    families
}

/// What an API server as the source of objects is like.
fn of_source(source: &SourceFigures) -> Vec<MetricFamily> {
    let SourceFigures {
        age_seconds,
        broken_watches,
        absent_kinds,
        counts,
    } = source;
    // Pods have two watches.
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (kind, count) in KINDS.iter().zip(counts) {
        let sum = sums.entry(kind.kind).or_default();
        sum.0 += count.objects as u64;
        sum.1 += count.bytes as u64;
    }
    let objects: Vec<_> = sums.iter().map(|(kind, sum)| (*kind, sum.0)).collect();
    let bytes: Vec<_> = sums.iter().map(|(kind, sum)| (*kind, sum.1)).collect();
    vec![
        gauge(
            "objects_age_seconds",
            "Seconds since anything came from the API server; a minute is usual where nothing happens",
            *age_seconds,
        ),
        gauge(
            "broken_watches",
            "Watches of the API server that do not work",
            *broken_watches as u64,
        ),
        gauge(
            "absent_kinds",
            "Kinds of objects that the API server does not have",
            *absent_kinds as u64,
        ),
        family(GAUGE, "objects", "Objects held, by kind", "kind", &objects),
        family(
            GAUGE,
            "object_bytes",
            "Bytes of the documents kept of objects, by kind",
            "kind",
            &bytes,
        ),
    ]
}

/// What other clusters are like. Their names are the configuration's.
fn of_other_clusters(clusters: &[OtherClusterGauges]) -> Vec<MetricFamily> {
    let of_source = |figure: fn(&SourceFigures) -> u64| -> Vec<(&str, u64)> {
        let sources = clusters.iter().filter_map(|it| Some((&*it.name, it.source.as_ref()?)));
        sources.map(|(name, source)| (name, figure(source))).collect()
    };
    let of_cluster = |figure: fn(&OtherClusterGauges) -> usize| -> Vec<(&str, u64)> {
        let clusters = clusters.iter();
        clusters.map(|it| (&*it.name, figure(it) as u64)).collect()
    };
    let families = [
        (
            "other_cluster_objects_age_seconds",
            "Seconds since anything came from another cluster's API server, by cluster",
            of_source(|source| source.age_seconds),
        ),
        (
            "other_cluster_broken_watches",
            "Watches of another cluster's API server that do not work, by cluster",
            of_source(|source| source.broken_watches as u64),
        ),
        (
            "other_cluster_pods",
            "Pods that are known of another cluster, by cluster",
            of_cluster(|it| it.pods),
        ),
        (
            "other_cluster_contested",
            "Ranges and addresses of another cluster that cannot be told from somebody else's, by cluster",
            of_cluster(|it| it.contested),
        ),
    ];
    // Of directories there is no age.
    let told = families.into_iter().filter(|(.., values)| !values.is_empty());
    told.map(|(name, help, values)| family(GAUGE, name, help, "cluster", &values))
        .collect()
}

const GAUGE: MetricType = MetricType::GAUGE;

fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    plain(MetricType::COUNTER, name, help, value)
}

fn gauge(name: &str, help: &str, value: u64) -> MetricFamily {
    plain(GAUGE, name, help, value)
}

fn plain(kind: MetricType, name: &str, help: &str, value: u64) -> MetricFamily {
    assemble(
        kind,
        &format!("namegate_{name}"),
        help,
        vec![metric(kind, Vec::new(), value as f64)],
    )
}

fn family(kind: MetricType, name: &str, help: &str, label_name: &str, values: &[(&str, u64)]) -> MetricFamily {
    let metrics = values
        .iter()
        .map(|(value, count)| metric(kind, vec![label(label_name, value)], *count as f64));
    assemble(kind, &format!("namegate_{name}"), help, metrics.collect())
}

/// Refused packets: IPv4 and IPv6 in each direction.
fn refused(packets: PerDirection<[u64; 2]>) -> MetricFamily {
    let of_direction = |(direction, counts): (Direction, &[u64; 2])| {
        ["ipv4", "ipv6"].into_iter().zip(*counts).map(move |(family, count)| {
            let labels = vec![label("direction", direction.as_str()), label("family", family)];
            metric(MetricType::COUNTER, labels, count as f64)
        })
    };
    assemble(
        MetricType::COUNTER,
        "namegate_refused_packets_total",
        "Packets that policy refused, by direction and address family",
        packets.iter().flat_map(of_direction).collect(),
    )
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// The one name without our prefix: it is the conventional one, which dashboards know.
fn process_start(started: f64) -> MetricFamily {
    let metric = metric(GAUGE, Vec::new(), started);
    assemble(
        GAUGE,
        "process_start_time_seconds",
        "Start of the process, in seconds of Unix time",
        vec![metric],
    )
}

fn metric(kind: MetricType, labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut metric = Metric::from_label(labels);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn assemble(kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use cluster::kubernetes::health::ObjectCount;

    use super::super::Metrics;
    use super::*;

    #[test]
    fn figures_are_shown_as_they_are() {
        let figures = Figures {
            writer: WriterStats {
                transactions: 11,
                failures: 12,
                elements_written: 13,
                elements: 14,
                capacity: 15,
                evictions: 17,
                installs: 16,
                gaps: 18,
            },
            names: 1,
            addresses: 2,
            evicted_names: 3,
            left_out_addresses: 5,
            endpoints_selected: 4,
            endpoints: 9,
            programs: 6,
            policies: [21, 22, 23, 24],
            lookups_in_flight: 7,
            inspected_connections: 41,
            refused_packets: PerDirection {
                egress: [31, 32],
                ingress: [35, 36],
            },
            record_overruns: 33,
            silent_upstreams: 34,
            source: Some(SourceFigures {
                age_seconds: 41,
                broken_watches: 42,
                absent_kinds: 43,
                counts: std::array::from_fn(|index| ObjectCount {
                    objects: index + 1,
                    bytes: 100,
                }),
            }),
            other_clusters: vec![OtherClusterGauges {
                name: "west".into(),
                pods: 46,
                contested: 47,
                source: Some(SourceFigures {
                    age_seconds: 44,
                    broken_watches: 45,
                    ..SourceFigures::default()
                }),
            }],
            deaths: 51,
            unwritten_files: 52,
            repairs: [61, 62, 63, 64, 65, 66, 67, 68],
            damage: 69,
            settings: 70,
        };
        let text = Metrics::new().render(&figures);
        for line in [
            "namegate_netlink_transactions_total 11",
            "namegate_netlink_failures_total 12",
            "namegate_elements_written_total 13",
            "namegate_set_elements 14",
            "namegate_set_capacity 15",
            "namegate_set_evictions_total 17",
            "namegate_ruleset_installs_total 16",
            "namegate_heartbeat_gaps_total 18",
            "namegate_repairs_total{kind=\"table\"} 61",
            "namegate_repairs_total{kind=\"rules\"} 63",
            "namegate_repairs_total{kind=\"route\"} 67",
            "namegate_repairs_total{kind=\"sysctl\"} 68",
            "namegate_damage 69",
            "namegate_changed_sysctls 70",
            "namegate_ledger_names 1",
            "namegate_ledger_addresses 2",
            "namegate_ledger_evictions_total 3",
            "namegate_ledger_addresses_left_out_total 5",
            "namegate_endpoints{selected=\"true\"} 4",
            "namegate_endpoints{selected=\"false\"} 5",
            "namegate_programs 6",
            "namegate_policies{state=\"accepted\"} 21",
            "namegate_policies{state=\"partial\"} 22",
            "namegate_policies{state=\"kept-last-good\"} 23",
            "namegate_policies{state=\"rejected\"} 24",
            "namegate_lookups_in_flight 7",
            "namegate_inspected_connections 41",
            "namegate_refused_packets_total{direction=\"egress\",family=\"ipv4\"} 31",
            "namegate_refused_packets_total{direction=\"egress\",family=\"ipv6\"} 32",
            "namegate_refused_packets_total{direction=\"ingress\",family=\"ipv4\"} 35",
            "namegate_refused_packets_total{direction=\"ingress\",family=\"ipv6\"} 36",
            "namegate_record_overruns_total 33",
            "namegate_silent_upstreams 34",
            "namegate_agent_deaths_total 51",
            "namegate_unwritten_state_files 52",
            "namegate_objects_age_seconds 41",
            "namegate_broken_watches 42",
            "namegate_absent_kinds 43",
            "namegate_other_cluster_objects_age_seconds{cluster=\"west\"} 44",
            "namegate_other_cluster_broken_watches{cluster=\"west\"} 45",
            "namegate_other_cluster_pods{cluster=\"west\"} 46",
            "namegate_other_cluster_contested{cluster=\"west\"} 47",
            "namegate_objects{kind=\"Pod\"} 3",
            "namegate_object_bytes{kind=\"Pod\"} 200",
            "namegate_objects{kind=\"Namespace\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("namegate_build_info{version=\""));
        assert!(text.contains("\nprocess_start_time_seconds "));
    }
}
