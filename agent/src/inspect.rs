//! What the running agent shows of itself.

use std::net::{IpAddr, SocketAddr};

use enforcer::audit::DamageKind;
use enforcer::writer::WriterStats;
use policy::endpoint::EndpointId;
use serde::{Deserialize, Serialize};

use crate::explain::{Answer, Asked};

use crate::objects::Report;
use crate::objects::kubernetes::kinds::KINDS;

/// Asked by the local API, `/readyz` and `/metrics`.
pub trait Inspect: Send + Sync + 'static {
    /// The whole state, for `namegate status`.
    fn status(&self) -> Status;
    /// Every live lease, for `namegate names`, ordered by name and address.
    fn names(&self) -> Vec<NameRow>;
    /// What was refused, or would have been, for `namegate drops`.
    fn records(&self) -> Records;
    /// Ready only when the ruleset is in the kernel and all DNS listeners are bound; otherwise what
    /// is missing.
    fn readiness(&self) -> Result<(), String>;
    /// What somebody may miss although it is ready.
    fn remark(&self) -> Option<String> {
        None
    }
    /// Why a pod may reach a destination, for `namegate explain`; an error says why that cannot be
    /// told.
    fn explain(&self, pod: &EndpointId, asked: &Asked) -> Result<Answer, String>;
    /// Figures for the gauges of `/metrics`.
    fn figures(&self) -> Figures;
}

/// Figures that are read when scraped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// The writer's.
    pub writer: WriterStats,
    /// Names with live leases.
    pub names: usize,
    /// Name–address pairs with live leases.
    pub addresses: usize,
    /// Names forgotten to make room, since the start.
    pub evicted_names: u64,
    /// Addresses of answers that were not opened, because a name may not hold so many; since the
    /// start.
    pub left_out_addresses: u64,
    /// Local endpoints with a program.
    pub endpoints_selected: usize,
    /// Local endpoints in all.
    pub endpoints: usize,
    /// Distinct programs.
    pub programs: usize,
    /// Policies by state: accepted, partial, kept-last-good, rejected.
    pub policies: [usize; 4],
    /// Lookups in flight.
    pub lookups_in_flight: usize,
    /// Packets refused, from the kernel's counters: IPv4, IPv6.
    pub refused_packets: [u64; 2],
    /// How often records were lost because too many came.
    pub record_overruns: u64,
    /// Upstreams that do not answer.
    pub silent_upstreams: usize,
    /// Of a source that can be away.
    pub source: Option<SourceFigures>,
    /// How many agents of the supervisor have died.
    pub deaths: u32,
    /// Files of the state directory that cannot be written.
    pub unwritten_files: usize,
    /// Repairs of what others had damaged, by the kinds of [`DamageKind::ALL`].
    pub repairs: [u64; DamageKind::ALL.len()],
    /// What is damaged and not repaired.
    pub damage: usize,
}

/// Figures of an API server as a source of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceFigures {
    /// Seconds since something came from it: so old may be what is in force.
    pub age_seconds: u64,
    /// Watches that do not work now.
    pub broken_watches: usize,
    /// Kinds that the API server does not have.
    pub absent_kinds: usize,
    /// What each watch holds, in the order of [`KINDS`].
    pub counts: [ObjectCount; KINDS.len()],
}

/// What a watch holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectCount {
    /// Objects.
    pub objects: usize,
    /// The bytes of what is kept of them.
    pub bytes: usize,
}

/// The state of the agent (`namegate status -o json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The version of the binary.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Who starts it again when it dies (`--supervise`).
    #[serde(default)]
    pub supervisor: Option<SupervisorStatus>,
    /// Whether it is ready, and what is missing otherwise.
    pub ready: bool,
    /// What is missing for readiness.
    pub not_ready_because: Option<String>,
    /// `dnat`, `tproxy` or `off`.
    pub interception: String,
    /// `open` or `closed`.
    pub fail_mode: String,
    /// The resolvers whose lookups are intercepted.
    pub resolvers: Vec<String>,
    /// Addresses of `--listen`.
    pub listening: Vec<String>,
    /// Local endpoints.
    pub endpoints: Vec<EndpointRow>,
    /// What was read, and what was found.
    pub reports: Vec<ReportRow>,
    /// Live names, addresses, kernel elements.
    pub names: usize,
    /// Name–address pairs with live leases.
    pub addresses: usize,
    /// Elements in the kernel.
    pub elements: u64,
    /// How often the heartbeat had lapsed, so that lookups went past the agent.
    #[serde(default)]
    pub heartbeat_gaps: u64,
    /// Upstreams that do not answer, one line each: who, and for how long.
    #[serde(default)]
    pub silent_upstreams: Vec<String>,
    /// Recorded packets.
    pub records: RecordsSummary,
    /// What must outlive the process and cannot be written.
    #[serde(default)]
    pub state_troubles: Vec<String>,
    /// Rules could not be installed: why, and since when in seconds.
    pub install_error: Option<String>,
    /// What others have changed in the kernel and is not repaired.
    #[serde(default)]
    pub damage: Vec<String>,
    /// The last repair of such a thing.
    #[serde(default)]
    pub last_repair: Option<RepairStatus>,
    /// The API server that objects come from, if they do.
    #[serde(default)]
    pub source: Option<SourceStatus>,
}

/// What somebody else had changed, and is as it should be again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// What had been changed.
    pub damage: Vec<String>,
    /// Seconds since it was in order again.
    pub seconds_ago: u64,
    /// Milliseconds from when it was noticed.
    pub took_ms: u64,
}

/// Who starts the agent again when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id; 0 where that cannot be seen.
    pub pid: u32,
    /// How many agents of this supervisor have died.
    pub deaths: u32,
}

/// The state of an API server as a source of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its address.
    pub server: String,
    /// Seconds since something came from it: so old may be what is in force.
    pub age_seconds: u64,
    /// Whether what is in force was written down by an earlier agent, because the API server does
    /// not answer.
    pub recalled: bool,
    /// The kinds that it has not told yet.
    pub awaited: Vec<String>,
    /// The kinds that the API server does not have.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The watches that do not work now, and why.
    pub troubles: Vec<String>,
}

/// One local endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointRow {
    /// `namespace/name`.
    pub endpoint: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `default-deny`, `allow` (selected, but open), `unselected`, or `contested` (nothing passes
    /// from an address of it that another Pod claims).
    pub egress: String,
    /// The program's id, where selected.
    pub program: Option<String>,
    /// The policies that select it.
    pub policies: Vec<String>,
}

/// One live lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The name, without trailing dot.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Milliseconds until the lease ends.
    pub lease_left_ms: u64,
    /// Who taught it.
    pub source: IpAddr,
    /// Whether that is a server which only some policies' DNS rules name: it teaches only the pods
    /// that these select.
    #[serde(default)]
    pub private: bool,
    /// The selectors (patterns) that match the name.
    pub selectors: Vec<String>,
    /// The policies that these selectors come from.
    pub policies: Vec<String>,
}

/// Refused and audited packets (`GET /v1/records`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Totals, and whether packets are recorded.
    pub summary: RecordsSummary,
    /// Distinct packets of late, the most recent first. A sample: only so many are remembered.
    pub rows: Vec<RecordRow>,
    /// Distinct answers of late that clients did not get, the most recent first. A sample like the
    /// packets.
    #[serde(default)]
    pub withheld: Vec<WithheldRow>,
}

/// Totals of recorded packets since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsSummary {
    /// Packets are recorded.
    pub on: bool,
    /// Why they are not, although they should be.
    pub failure: Option<String>,
    /// Packets that an audited policy would have refused.
    pub audited: u64,
    /// Records of refused packets; the kernel may log fewer than it refuses.
    pub refused: u64,
    /// How often records were lost because too many came.
    pub overruns: u64,
}

/// Packets that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    /// Milliseconds since the last of them.
    pub last_seen_ms_ago: u64,
    /// Milliseconds since the first of them.
    pub first_seen_ms_ago: u64,
    /// How many.
    pub count: u64,
    /// `refused`; or `audited`: it passed, because the policy is only audited.
    pub verdict: String,
    /// `namespace/name` of the sender, where its address is a Pod's.
    pub pod: Option<String>,
    /// The sender's address.
    pub source: IpAddr,
    /// Where to. Behind a Service, that is the backend.
    pub destination: IpAddr,
    /// `TCP`, `UDP`, …; a number where it has no common name.
    pub protocol: String,
    /// The destination port.
    pub port: Option<u16>,
    /// The type of ICMP and ICMPv6.
    pub icmp_type: Option<u8>,
    /// The name that last led this Pod to the address.
    pub name: Option<String>,
    /// The policy, or several, that decided.
    pub policy: Option<String>,
    /// The rule that decided; none where no rule allows the packet.
    pub rule: Option<String>,
}

/// Answers that an upstream gave and that a client did not get, and that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithheldRow {
    /// Milliseconds since the last of them.
    pub last_seen_ms_ago: u64,
    /// Milliseconds since the first of them.
    pub first_seen_ms_ago: u64,
    /// How many.
    pub count: u64,
    /// `withheld`.
    pub verdict: String,
    /// `namespace/name` of who asked, where its address is a Pod's.
    pub pod: Option<String>,
    /// Who asked; nobody where the answer cache did.
    pub source: Option<IpAddr>,
    /// The name asked for.
    pub name: String,
    /// Who answered.
    pub upstream: SocketAddr,
    /// Why, as the metric says it.
    pub reason: String,
    /// Why, for people.
    pub why: String,
}

/// A [`Report`] as it crosses the local API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportRow {
    /// The file.
    pub file: Option<String>,
    /// `kind namespace/name`.
    pub object: String,
    /// `accepted`, `partial`, `kept-last-good`, `rejected`.
    pub state: String,
    /// One line each: `file:line:column: severity: path: reason (suggestion)`.
    pub findings: Vec<String>,
}

impl From<&Report> for ReportRow {
    fn from(report: &Report) -> Self {
        let finding = |diagnostic| {
            let headline = report.headline(diagnostic);
            match &diagnostic.suggestion {
                Some(suggestion) => format!("{headline} ({suggestion})"),
                None => headline,
            }
        };
        Self {
            file: report.file.as_ref().map(|file| file.display().to_string()),
            object: report.object.clone(),
            state: report.state.as_str().into(),
            findings: report.diagnostics.iter().map(finding).collect(),
        }
    }
}

/// An agent that shows what it is told to, for the tests of what shows it.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    pub(crate) struct Fake {
        missing: Option<String>,
        pub(crate) names: Vec<NameRow>,
        pub(crate) records: Records,
    }

    impl Fake {
        pub(crate) fn ready() -> Self {
            let row = |name: &str, address: &str| NameRow {
                name: name.into(),
                address: address.parse().unwrap(),
                lease_left_ms: 61_500,
                source: "192.0.2.53".parse().unwrap(),
                private: false,
                selectors: vec!["*.example".into()],
                policies: vec!["shop/api".into()],
            };
            Self {
                missing: None,
                names: vec![row("a.example", "192.0.2.1"), row("b.example", "2001:db8::1")],
                records: records(),
            }
        }

        pub(crate) fn not_ready(missing: &str) -> Self {
            Self {
                missing: Some(missing.into()),
                ..Self::ready()
            }
        }
    }

    fn records() -> Records {
        let refused = RecordRow {
            last_seen_ms_ago: 1_500,
            first_seen_ms_ago: 61_500,
            count: 3,
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
            last_seen_ms_ago: 62_000,
            count: 1,
            verdict: "audited".into(),
            destination: "2001:db8::1".parse().unwrap(),
            protocol: "ICMPv6".into(),
            port: None,
            icmp_type: Some(128),
            name: Some("b.example".into()),
            rule: Some("egressDeny[0]".into()),
            ..refused.clone()
        };
        Records {
            summary: RecordsSummary {
                on: true,
                failure: None,
                audited: 0,
                refused: 3,
                overruns: 0,
            },
            rows: vec![refused, audited],
            withheld: vec![WithheldRow {
                last_seen_ms_ago: 2_000,
                first_seen_ms_ago: 9_000,
                count: 4,
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

    impl Inspect for Fake {
        fn explain(&self, pod: &EndpointId, _: &Asked) -> Result<Answer, String> {
            Err(format!("there is no pod {pod}"))
        }

        fn status(&self) -> Status {
            Status {
                version: "0.0.0".into(),
                node: "node-1".into(),
                pid: 7,
                uptime_seconds: 3_725,
                supervisor: None,
                ready: self.missing.is_none(),
                not_ready_because: self.missing.clone(),
                interception: "dnat".into(),
                fail_mode: "open".into(),
                resolvers: vec!["192.0.2.53:53".into()],
                listening: Vec::new(),
                endpoints: vec![EndpointRow {
                    endpoint: "shop/api".into(),
                    addresses: vec!["10.0.0.2".parse().unwrap()],
                    egress: "default-deny".into(),
                    program: Some("1f".into()),
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
                        findings: vec!["a.yaml:9:3: not enforced: spec.ingress: it is not".into()],
                    },
                ],
                names: self.names.len(),
                addresses: self.names.len(),
                elements: 3,
                heartbeat_gaps: 0,
                records: self.records.summary.clone(),
                state_troubles: Vec::new(),
                install_error: None,
                damage: Vec::new(),
                last_repair: None,
                source: None,
                silent_upstreams: Vec::new(),
            }
        }

        fn names(&self) -> Vec<NameRow> {
            self.names.clone()
        }

        fn records(&self) -> Records {
            self.records.clone()
        }

        fn readiness(&self) -> Result<(), String> {
            self.missing.clone().map_or(Ok(()), Err)
        }

        fn figures(&self) -> Figures {
            Figures {
                names: self.names.len(),
                ..Figures::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use policy::diagnostic::Position;
    use policy::{Diagnostic, Severity};

    use super::*;
    use crate::objects::ReportState;

    fn finding(severity: Severity, position: Option<(u32, u32)>) -> Diagnostic {
        Diagnostic {
            severity,
            code: "test",
            path: "spec.egress[0]".into(),
            position: position.map(|(line, column)| Position {
                line,
                column,
                offset: 0,
                length: 0,
            }),
            reason: "it is wrong".into(),
            suggestion: None,
        }
    }

    #[test]
    fn findings_are_lines_that_say_where_how_bad_and_what_to_do() {
        let mut error = finding(Severity::Error, Some((7, 5)));
        error.suggestion = Some("write it right".into());
        let report = Report::new(
            Some(Path::new("objects/a.yaml")),
            "CiliumNetworkPolicy shop/api".into(),
            ReportState::KeptLastGood,
            vec![finding(Severity::Warning, None), error],
        );
        let row = ReportRow::from(&report);
        assert_eq!(row.file.as_deref(), Some("objects/a.yaml"));
        assert_eq!(row.state, "kept-last-good");
        assert_eq!(
            row.findings,
            [
                "objects/a.yaml:7:5: error[test] spec.egress[0]: it is wrong (write it right)",
                "objects/a.yaml: warning[test] CiliumNetworkPolicy shop/api: spec.egress[0]: it is wrong",
            ]
        );
    }
}
