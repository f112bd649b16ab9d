//! Prometheus metrics: base units, and labels from closed enums only.
//!
//! Counters and histograms of the lookup path are resolved to handles when they are registered, and
//! indexed by enum: counting is a few atomic additions. Everything else is read from [`Figures`]
//! when scraped ([`figures`]).

mod figures;
mod namespaces;

use std::time::{Duration, UNIX_EPOCH};

use dns_proxy::{
    AdmissionErrorKind, CacheOutcome, DenialKind, DiscardReason, Transport, UpstreamOutcome, WithheldReason,
};
use dns_proxy::{InvalidAnswer, ProxyEvent};
use enforcer::records::RecordedVerdict;
use policy::{Direction, PerDirection};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::inspect::Figures;

use namespaces::Namespaces;

/// How clients ask.
const TRANSPORTS: [&str; 2] = ["udp", "tcp"];
/// How upstreams are asked.
const UPSTREAM_TRANSPORTS: [&str; 5] = ["udp", "tcp", "tls", "https", "quic"];
const TYPES: [&str; 8] = ["A", "AAAA", "HTTPS", "SVCB", "PTR", "SRV", "TXT", "other"];
/// `discovery`: whether to leave for encrypted DNS was asked, and answered so that the client
/// stays.
const VERDICTS: [&str; 3] = ["allowed", "denied", "discovery"];
const RCODES: [&str; 7] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "other",
];
const OUTCOMES: [&str; 6] = [
    "answered",
    "truncated",
    "timed-out",
    "unreachable",
    "mismatched",
    "unproven",
];
const CACHE_OUTCOMES: [&str; 4] = ["hit", "miss", "stale", "refresh"];
const WITHHELD: [&str; 9] = [
    "unreadable",
    "off-chain",
    "circle",
    "two-aliases",
    "long-chain",
    "full",
    "refused",
    "late",
    "stopped",
];
const DISCARDS: [&str; 4] = ["not-a-query", "client-limit", "total-limit", "connection-limit"];

/// A denial takes some 50 µs, an answer from the next rack less than a millisecond, patience ends
/// at 5 s.
const LOOKUP_BUCKETS: [f64; 16] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0,
];
/// An element takes 5 to 10 µs; another agent's transaction can hold ours up for 80 ms; the
/// deadline is a second.
const COMMIT_BUCKETS: [f64; 14] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1.0,
];

/// The registry and its instruments.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    queries: [[[IntCounter; VERDICTS.len()]; TYPES.len()]; TRANSPORTS.len()],
    replies: [[IntCounter; RCODES.len()]; TRANSPORTS.len()],
    request_duration: Histogram,
    upstream_duration: [Histogram; UPSTREAM_TRANSPORTS.len()],
    upstream_outcomes: [IntCounter; OUTCOMES.len()],
    commit_wait: Histogram,
    commit_failures: IntCounter,
    discarded: [IntCounter; DISCARDS.len()],
    audited: PerDirection<Namespaces>,
    refused: PerDirection<Namespaces>,
    denied: Namespaces,
    flows_cut: PerDirection<IntCounter>,
    flows_unattributed: IntGauge,
    /// Allowed, and what would be refused, or is, by reason.
    inspection_allowed: IntCounter,
    inspection_audited: IntCounterVec,
    inspection_refused: IntCounterVec,
    inspection_dial_failures: IntCounterVec,
    withheld: [IntCounter; WITHHELD.len()],
    cache: [IntCounter; CACHE_OUTCOMES.len()],
    /// Seconds of Unix time.
    started: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes all metrics, and registers them.
    pub fn new() -> Self {
        let register = Registrar(Registry::new());
        let queries = register.counters(
            "namegate_dns_queries_total",
            "Queries read, by transport, type and whether policy let them be asked",
            &["transport", "type", "verdict"],
        );
        let replies = register.counters(
            "namegate_dns_replies_total",
            "Replies sent to clients, by transport and response code",
            &["transport", "rcode"],
        );
        let upstream_duration = register.histograms(
            "namegate_dns_upstream_duration_seconds",
            "From asking an upstream to its answer, by transport; answers only",
            &["transport"],
            &LOOKUP_BUCKETS,
        );
        let upstream_outcomes = register.counters(
            "namegate_dns_upstream_outcomes_total",
            "What came of asking an upstream",
            &["outcome"],
        );
        let discarded = register.counters(
            "namegate_dns_discarded_total",
            "Packets and connections discarded without a reply, by reason",
            &["reason"],
        );
        let flows_cut = register.counters(
            "namegate_flows_cut_total",
            "Established flows that were cut because policies did not allow them any more, by direction",
            &["direction"],
        );
        let withheld = register.counters(
            "namegate_dns_withheld_total",
            "Answers of upstreams that clients did not get, by reason",
            &["reason"],
        );
        let cache = register.counters(
            "namegate_dns_cache_total",
            "What the answer cache had, and answers that it asked for again",
            &["outcome"],
        );
        Self {
            queries: TRANSPORTS.map(|transport| {
                TYPES.map(|qtype| VERDICTS.map(|verdict| queries.with_label_values(&[transport, qtype, verdict])))
            }),
            replies: TRANSPORTS.map(|transport| RCODES.map(|rcode| replies.with_label_values(&[transport, rcode]))),
            request_duration: register.histogram(
                "namegate_dns_request_duration_seconds",
                "From receiving a query to sending the reply, the wait for upstream and kernel included",
                &LOOKUP_BUCKETS,
            ),
            upstream_duration: UPSTREAM_TRANSPORTS.map(|transport| upstream_duration.with_label_values(&[transport])),
            upstream_outcomes: OUTCOMES.map(|outcome| upstream_outcomes.with_label_values(&[outcome])),
            commit_wait: register.histogram(
                "namegate_dns_commit_wait_seconds",
                "How long answers waited for the kernel to acknowledge their addresses",
                &COMMIT_BUCKETS,
            ),
            commit_failures: register.counter(
                "namegate_dns_commit_failures_total",
                "Answers withheld because the kernel did not acknowledge their addresses",
            ),
            audited: by_direction(&register.counters(
                "namegate_audited_packets_total",
                "Packets that passed and that an audited policy would have refused, by direction and the namespace of \
                 the Pod whose policy it is",
                &["direction", "namespace"],
            )),
            refused: by_direction(&register.counters(
                "namegate_refused_records_total",
                "Records of refused packets, by direction and the namespace of the Pod whose policy refused them; \
                 namegate_refused_packets_total counts all of them",
                &["direction", "namespace"],
            )),
            denied: Namespaces::new(
                register.counters(
                    "namegate_denied_lookups_total",
                    "Lookups that policies denied, by the namespace of the Pod that asked; empty where no Pod that \
                     policies govern has its address",
                    &["namespace"],
                ),
                None,
            ),
            flows_cut: PerDirection::from_fn(|direction| flows_cut.with_label_values(&[direction.as_str()])),
            inspection_allowed: register.counter(
                "namegate_inspection_allowed_total",
                "TLS connections and requests that were looked into, and passed",
            ),
            inspection_audited: register.counters(
                "namegate_inspection_audited_total",
                "Connections and requests that were looked into and passed, and that an audited policy would have \
                 refused, by reason",
                &["reason"],
            ),
            inspection_dial_failures: register.counters(
                "namegate_inspection_dial_failures_total",
                "Servers that could not be reached in the place of a client whose connection is looked into, by why",
                &["why"],
            ),
            inspection_refused: register.counters(
                "namegate_inspection_refused_total",
                "Connections and requests that were looked into and refused, by reason",
                &["reason"],
            ),
            flows_unattributed: register.gauge(
                "namegate_flows_unattributed",
                "Flows to addresses that no lease holds and no known name led to, when flows were last judged",
            ),
            discarded: DISCARDS.map(|reason| discarded.with_label_values(&[reason])),
            withheld: WITHHELD.map(|reason| withheld.with_label_values(&[reason])),
            cache: CACHE_OUTCOMES.map(|outcome| cache.with_label_values(&[outcome])),
            registry: register.0,
            started: unix_now().as_secs_f64(),
        }
    }

    /// Counts one event of the proxy. Called for every lookup: does not allocate or lock.
    pub fn observe(&self, event: &ProxyEvent<'_>) {
        match event {
            ProxyEvent::Query {
                transport,
                question,
                denied,
            } => {
                // In the order of VERDICTS.
                let verdict = match denied {
                    None => 0,
                    Some(DenialKind::Refused) => 1,
                    Some(DenialKind::Discovery) => 2,
                };
                self.queries[transport_index(*transport)][type_index(question.qtype)][verdict].inc();
            }
            ProxyEvent::Reply { transport, rcode, took } => {
                self.replies[transport_index(*transport)][rcode_index(*rcode)].inc();
                self.request_duration.observe(took.as_secs_f64());
            }
            ProxyEvent::Upstream {
                server: _,
                transport,
                outcome,
                took,
            } => {
                self.upstream_outcomes[outcome_index(*outcome)].inc();
                if matches!(outcome, UpstreamOutcome::Answered | UpstreamOutcome::Truncated) {
                    self.upstream_duration[upstream_transport_index(*transport)].observe(took.as_secs_f64());
                }
            }
            // A gauge tells who is silent.
            // Counted as replies, and as outcomes of the upstreams.
            ProxyEvent::UpstreamState { .. } | ProxyEvent::Unanswered { .. } => {}
            ProxyEvent::CommitWait { took, committed } => {
                self.commit_wait.observe(took.as_secs_f64());
                if !committed {
                    self.commit_failures.inc();
                }
            }
            ProxyEvent::Withheld { why, .. } => self.withheld[withheld_index(*why)].inc(),
            ProxyEvent::Cache(outcome) => self.cache[cache_index(*outcome)].inc(),
            ProxyEvent::Discarded(discard) => self.discarded[discard_index(*discard)].inc(),
        }
    }

    /// Counts a recorded packet; the namespace is empty where no Pod of this node has the address
    /// that was judged.
    pub fn record(&self, direction: Direction, verdict: RecordedVerdict, namespace: &str) {
        let counters = match verdict {
            RecordedVerdict::Audited => &self.audited,
            RecordedVerdict::Refused => &self.refused,
        };
        counters[direction].count(namespace, 1);
    }

    /// Counts lookups that were denied; the namespace is empty where no governed Pod has asked.
    pub fn denied_lookups(&self, namespace: &str, lookups: u64) {
        self.denied.count(namespace, lookups);
    }

    /// Counts flows that were cut, because the program of this direction denies them.
    pub fn flows_cut(&self, direction: Direction, flows: usize) {
        self.flows_cut[direction].inc_by(u64::try_from(flows).unwrap_or(u64::MAX));
    }

    /// Counts a connection or request that was looked into and passed.
    pub fn inspection_allowed(&self) {
        self.inspection_allowed.inc();
    }

    /// Counts one that passed and would be refused. `reason` is of a closed set
    /// ([`l7_proxy::Refusal::label`]).
    pub fn inspection_audited(&self, reason: &'static str) {
        self.inspection_audited.with_label_values(&[reason]).inc();
    }

    /// Counts a server that could not be reached. `why` is of a closed set
    /// ([`l7_proxy::DialFailure::label`]).
    pub fn inspection_dial_failed(&self, why: &'static str) {
        self.inspection_dial_failures.with_label_values(&[why]).inc();
    }

    /// Counts one that was refused. `reason` is of a closed set ([`l7_proxy::Refusal::label`]).
    pub fn inspection_refused(&self, reason: &'static str) {
        self.inspection_refused.with_label_values(&[reason]).inc();
    }

    /// Notes how many flows have no known name.
    pub fn unattributed_flows(&self, flows: usize) {
        self.flows_unattributed.set(i64::try_from(flows).unwrap_or(i64::MAX));
    }

    /// The text exposition format, gauges from `figures`.
    pub fn render(&self, figures: &Figures) -> String {
        let mut families = self.registry.gather();
        families.extend(figures::families(figures, self.started));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        // Fails only for a family without metrics, or on I/O; there is neither.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

fn by_direction(counters: &IntCounterVec) -> PerDirection<Namespaces> {
    PerDirection::from_fn(|direction| Namespaces::new(counters.clone(), Some(direction)))
}

fn transport_index(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        // Clients come over these two alone.
        Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => 1,
    }
}

fn upstream_transport_index(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Https => 3,
        Transport::Quic => 4,
    }
}

/// The numbers are of the IANA registry "Resource Record (RR) TYPEs".
fn type_index(qtype: u16) -> usize {
    match qtype {
        1 => 0,
        28 => 1,
        65 => 2,
        64 => 3,
        12 => 4,
        33 => 5,
        16 => 6,
        _ => 7,
    }
}

fn rcode_index(rcode: u8) -> usize {
    usize::from(rcode).min(RCODES.len() - 1)
}

fn outcome_index(outcome: UpstreamOutcome) -> usize {
    match outcome {
        UpstreamOutcome::Answered => 0,
        UpstreamOutcome::Truncated => 1,
        UpstreamOutcome::TimedOut => 2,
        UpstreamOutcome::Unreachable => 3,
        UpstreamOutcome::Mismatched => 4,
        UpstreamOutcome::Unproven => 5,
    }
}

fn cache_index(outcome: CacheOutcome) -> usize {
    match outcome {
        CacheOutcome::Hit => 0,
        CacheOutcome::Miss => 1,
        CacheOutcome::Stale => 2,
        CacheOutcome::Refresh => 3,
    }
}

fn withheld_index(why: WithheldReason) -> usize {
    match why {
        WithheldReason::Invalid(InvalidAnswer::Malformed) => 0,
        WithheldReason::Invalid(InvalidAnswer::BrokenChain) => 1,
        WithheldReason::Invalid(InvalidAnswer::AliasLoop) => 2,
        WithheldReason::Invalid(InvalidAnswer::ConflictingAliases) => 3,
        WithheldReason::Invalid(InvalidAnswer::ChainTooLong) => 4,
        WithheldReason::NotAdmitted(AdmissionErrorKind::Full) => 5,
        WithheldReason::NotAdmitted(AdmissionErrorKind::Refused) => 6,
        WithheldReason::NotAdmitted(AdmissionErrorKind::TimedOut) => 7,
        WithheldReason::NotAdmitted(AdmissionErrorKind::Stopped) => 8,
    }
}

/// Why an answer was withheld, as the label says it.
pub fn withheld_reason(why: WithheldReason) -> &'static str {
    WITHHELD[withheld_index(why)]
}

fn discard_index(discard: DiscardReason) -> usize {
    match discard {
        DiscardReason::NotAQuery => 0,
        DiscardReason::ClientLimit => 1,
        DiscardReason::TotalLimit => 2,
        DiscardReason::ConnectionLimit => 3,
    }
}

/// Makes instruments in a registry of its own.
///
/// prometheus refuses malformed and doubled names. All names here are literals, and a test makes
/// them all.
struct Registrar(Registry);

impl Registrar {
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("the name is well-formed"))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("the name is well-formed"))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels).expect("the names are well-formed"))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options).expect("the name is well-formed and the buckets ascend"))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels).expect("the names are well-formed and the buckets ascend"))
    }

    fn register<C: Collector + Clone + 'static>(&self, instrument: C) -> C {
        self.0
            .register(Box::new(instrument.clone()))
            .expect("each name is used once");
        instrument
    }
}

/// Unix time, which is what Prometheus counts in.
#[expect(
    clippy::disallowed_methods,
    reason = "a wall-clock moment is what is shown; nothing is decided by it"
)]
fn unix_now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use dns_proxy::DnsQuestion;
    use names::Name;

    use super::*;

    fn rendered(metrics: &Metrics) -> String {
        metrics.render(&Figures::default())
    }

    #[test]
    fn every_event_is_counted_under_its_labels() {
        let metrics = Metrics::new();
        let question = |qtype| DnsQuestion {
            name: Name::root(),
            qtype,
            qclass: 1,
            takes_reasons: false,
        };
        let took = Duration::from_micros(300);
        let server = "192.0.2.53:53".parse().unwrap();
        for event in [
            ProxyEvent::Query {
                transport: Transport::Udp,
                question: &question(28),
                denied: None,
            },
            ProxyEvent::Query {
                transport: Transport::Tcp,
                question: &question(6),
                denied: Some(DenialKind::Refused),
            },
            ProxyEvent::Reply {
                transport: Transport::Udp,
                rcode: 3,
                took,
            },
            ProxyEvent::Reply {
                transport: Transport::Udp,
                rcode: 15,
                took,
            },
            ProxyEvent::Upstream {
                server,
                transport: Transport::Udp,
                outcome: UpstreamOutcome::Answered,
                took,
            },
            ProxyEvent::Upstream {
                server,
                transport: Transport::Quic,
                outcome: UpstreamOutcome::Answered,
                took,
            },
            ProxyEvent::Upstream {
                server,
                transport: Transport::Udp,
                outcome: UpstreamOutcome::TimedOut,
                took,
            },
            ProxyEvent::CommitWait { took, committed: true },
            ProxyEvent::CommitWait { took, committed: false },
            ProxyEvent::Cache(CacheOutcome::Hit),
            ProxyEvent::Discarded(DiscardReason::ClientLimit),
        ] {
            metrics.observe(&event);
        }
        let text = rendered(&metrics);
        for line in [
            "namegate_dns_queries_total{transport=\"udp\",type=\"AAAA\",verdict=\"allowed\"} 1",
            "namegate_dns_queries_total{transport=\"tcp\",type=\"other\",verdict=\"denied\"} 1",
            "namegate_dns_replies_total{rcode=\"NXDOMAIN\",transport=\"udp\"} 1",
            "namegate_dns_replies_total{rcode=\"other\",transport=\"udp\"} 1",
            "namegate_dns_request_duration_seconds_bucket{le=\"0.00025\"} 0",
            "namegate_dns_request_duration_seconds_bucket{le=\"0.0005\"} 2",
            "namegate_dns_upstream_duration_seconds_count{transport=\"udp\"} 1",
            "namegate_dns_upstream_duration_seconds_count{transport=\"tcp\"} 0",
            "namegate_dns_upstream_duration_seconds_count{transport=\"quic\"} 1",
            "namegate_dns_upstream_outcomes_total{outcome=\"timed-out\"} 1",
            "namegate_dns_commit_wait_seconds_count 2",
            "namegate_dns_commit_failures_total 1",
            "namegate_dns_cache_total{outcome=\"hit\"} 1",
            "namegate_dns_discarded_total{reason=\"client-limit\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn recorded_packets_and_denied_lookups_are_counted_by_namespace() {
        let metrics = Metrics::new();
        for (direction, verdict, namespace) in [
            (Direction::Egress, RecordedVerdict::Audited, "shop"),
            (Direction::Egress, RecordedVerdict::Audited, "shop"),
            (Direction::Ingress, RecordedVerdict::Audited, "shop"),
            (Direction::Ingress, RecordedVerdict::Refused, ""),
        ] {
            metrics.record(direction, verdict, namespace);
        }
        metrics.denied_lookups("shop", 3);
        metrics.denied_lookups("shop", 1);
        let text = rendered(&metrics);
        for line in [
            "namegate_audited_packets_total{direction=\"egress\",namespace=\"shop\"} 2",
            "namegate_audited_packets_total{direction=\"ingress\",namespace=\"shop\"} 1",
            "namegate_refused_records_total{direction=\"ingress\",namespace=\"\"} 1",
            "namegate_denied_lookups_total{namespace=\"shop\"} 4",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_series_of_a_closed_enum_is_there_from_the_start() {
        let text = rendered(&Metrics::new());
        let series = text.lines().filter(|it| it.starts_with("namegate_dns_queries_total{"));
        assert_eq!(series.count(), TRANSPORTS.len() * TYPES.len() * VERDICTS.len());
    }

    #[test]
    fn names_keep_to_the_conventions() {
        let text = rendered(&Metrics::new());
        let types: Vec<&str> = text.lines().filter_map(|it| it.strip_prefix("# TYPE ")).collect();
        assert!(types.len() > 20);
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(
                name.starts_with("namegate_") || name == "process_start_time_seconds",
                "{name}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        }
        let mut names: Vec<&str> = text.lines().filter_map(|it| it.strip_prefix("# HELP ")).collect();
        let sorted = names.clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn an_unknown_rcode_has_a_place() {
        for rcode in 0..=u8::MAX {
            assert!(rcode_index(rcode) < RCODES.len());
        }
    }
}
