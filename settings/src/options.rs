//! The flags of `namegate agent`, all optional.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dns_proxy::Rcode;
use enforcer::FailMode;
use ipnet::IpNet;
use policy::{DenyResponse, QuestionMode};

use super::{EncryptedDnsDiscovery, NameMatching, PrivateAddresses, UnknownPods, UpstreamAddress};

/// What may be said on the command line and, under the same names, in the config file.
///
/// A value that is absent here takes its default in [`resolve`](super::resolve). Texts of defaults
/// are written by hand, and a test compares them with the values.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct AgentOptions {
    /// Directory of Kubernetes objects in YAML or JSON, watched for changes
    #[arg(long, value_name = "DIR", help_heading = "Objects")]
    pub objects: Option<PathBuf>,
    /// Watch the cluster of this kubeconfig in place of --objects [default: the cluster that this
    /// is a Pod of]
    #[arg(long, value_name = "FILE", conflicts_with = "objects", help_heading = "Objects")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node; a Pod whose spec.nodeName is another is not local [default: the host's
    /// name]
    #[arg(long, value_name = "NAME", help_heading = "Objects")]
    pub node: Option<String>,
    /// Pod or service range, besides what the objects tell; names never open it (repeatable)
    #[arg(long, value_name = "CIDR", help_heading = "Objects")]
    pub cluster_cidr: Vec<IpNet>,
    /// Take the taint with this key from the node when the agent is ready [default: none]
    #[arg(long, value_name = "KEY", help_heading = "Objects")]
    pub startup_taint: Option<String>,
    /// The cluster's DNS domain [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", help_heading = "Objects")]
    pub cluster_domain: Option<String>,
    /// Service whose addresses are trusted resolvers (repeatable) [default: kube-system/kube-dns]
    #[arg(long, value_name = "NAMESPACE/NAME", help_heading = "Objects")]
    pub cluster_dns: Vec<ServiceName>,

    /// Resolver to ask, in order of preference; encrypted: tls://IP#NAME, https://IP/PATH#NAME,
    /// quic://IP#NAME (repeatable) [default: the nameservers of /etc/resolv.conf]
    #[arg(long, value_name = "IP[:PORT]|URL", help_heading = "DNS")]
    pub upstream: Vec<UpstreamAddress>,
    /// Certificates of authorities, in PEM, that encrypted upstreams are checked against [default:
    /// the system's]
    #[arg(long, value_name = "FILE", help_heading = "DNS")]
    pub upstream_ca: Option<PathBuf>,
    /// Serve as a plain resolver there (repeatable)
    #[arg(long, value_name = "IP[:PORT]", help_heading = "DNS")]
    pub listen: Vec<DnsAddress>,
    /// How lookups of governed workloads reach the agent; `off`: they are told to ask --listen
    /// [default: dnat]
    #[arg(long, value_name = "MODE", value_parser = choice([("dnat", InterceptionMode::Dnat), ("tproxy", InterceptionMode::Tproxy), ("off", InterceptionMode::Off)]), help_heading = "DNS")]
    pub intercept: Option<InterceptionMode>,
    /// With --intercept tproxy: the packet mark's bits, which no other program may use [default:
    /// 0x1000]
    #[arg(long, value_name = "BITS", help_heading = "DNS")]
    pub tproxy_mark: Option<PacketMark>,
    /// With --intercept tproxy: the routing table for marked packets [default: 5353]
    #[arg(long, value_name = "TABLE", help_heading = "DNS")]
    pub tproxy_table: Option<u32>,
    /// With --intercept tproxy: the port of the transparent sockets [default: 15353]
    #[arg(long, value_name = "PORT", help_heading = "DNS")]
    pub tproxy_port: Option<u16>,
    /// What may be asked where no policy has a DNS rule [default: any in a cluster, allowed-only
    /// with --objects]
    #[arg(long, value_name = "WHICH", value_parser = choice([("any", QuestionMode::Any), ("allowed-only", QuestionMode::AllowedOnly)]), help_heading = "DNS")]
    pub dns_questions: Option<QuestionMode>,
    /// Whether toFQDNs is matched against the name asked, or also against its CNAME chain [default:
    /// question]
    #[arg(long, value_name = "WHICH", value_parser = choice([("question", NameMatching::Question), ("chain", NameMatching::Chain)]), help_heading = "DNS")]
    pub dns_match: Option<NameMatching>,
    /// How a denied question is answered [default: nxdomain]
    #[arg(long, value_name = "HOW", value_parser = choice([("nxdomain", Rcode::NxDomain), ("refused", Rcode::Refused)]), help_heading = "DNS")]
    pub dns_denied: Option<Rcode>,
    /// Whether clients may find encrypted DNS by themselves (use-application-dns.net,
    /// resolver.arpa) [default: deny]
    #[arg(long, value_name = "WHAT", value_parser = choice([("allow", EncryptedDnsDiscovery::Allow), ("deny", EncryptedDnsDiscovery::Deny)]), help_heading = "DNS")]
    pub encrypted_dns_discovery: Option<EncryptedDnsDiscovery>,
    /// What becomes of lookups when the agent is gone: they pass unobserved, or are refused
    /// [default: open]
    #[arg(long, value_name = "MODE", value_parser = choice([("open", FailMode::Open), ("closed", FailMode::Closed)]), help_heading = "DNS")]
    pub fail_mode: Option<FailMode>,
    /// How long an answer waits for the kernel before SERVFAIL [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "DNS")]
    pub commit_deadline: Option<Duration>,
    /// Keep answers for their TTL, so many at once; 0: ask for each lookup [default: 0]
    #[arg(long, value_name = "N", help_heading = "DNS")]
    pub dns_cache: Option<usize>,
    /// With --dns-cache: how long past its TTL an answer is given when no upstream answers; 0s: not
    /// at all [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "DNS")]
    pub dns_cache_stale: Option<Duration>,

    /// TTLs below this count as this [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Leases")]
    pub min_ttl: Option<Duration>,
    /// TTLs above this count as this [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Leases")]
    pub max_ttl: Option<Duration>,
    /// How much longer than its TTL an address stays allowed [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Leases")]
    pub grace: Option<Duration>,
    /// Names remembered at once [default: 100000]
    #[arg(long, value_name = "N", help_heading = "Leases")]
    pub max_names: Option<usize>,
    /// Addresses remembered for one name [default: 1000]
    #[arg(long, value_name = "N", help_heading = "Leases")]
    pub max_addresses_per_name: Option<usize>,
    /// Range that names may open although it is loopback, link-local or inside the cluster
    /// (repeatable)
    #[arg(long, value_name = "CIDR", help_heading = "Leases")]
    pub allow_rebind: Vec<IpNet>,
    /// Whether names may open private addresses (RFC 1918, 100.64.0.0/10, fc00::/7) outside
    /// --allow-rebind [default: allow]
    #[arg(long, value_name = "WHAT", value_parser = choice([("allow", PrivateAddresses::Allow), ("deny", PrivateAddresses::Deny)]), help_heading = "Leases")]
    pub private_addresses: Option<PrivateAddresses>,

    /// The nftables table, in family inet [default: namegate]
    #[arg(long, value_name = "NAME", help_heading = "Kernel")]
    pub table: Option<String>,
    /// What a refused packet gets: a reset or ICMP error, or nothing [default: reject]
    #[arg(long, value_name = "HOW", value_parser = choice([("reject", DenyResponse::Reject), ("drop", DenyResponse::Drop)]), help_heading = "Kernel")]
    pub deny_response: Option<DenyResponse>,
    /// What becomes of packets from addresses of this node's pod ranges that no Pod object names
    /// (yet) [default: allow]
    #[arg(long, value_name = "WHAT", value_parser = choice([("allow", UnknownPods::Allow), ("deny", UnknownPods::Deny)]), help_heading = "Kernel")]
    pub unknown_pods: Option<UnknownPods>,
    /// Elements that each learned set can hold: an address with a port is one [default: 65536]
    #[arg(long, value_name = "N", help_heading = "Kernel")]
    pub set_capacity: Option<u32>,
    /// NFLOG group over which refused and audited packets are recorded, for `namegate drops`, or
    /// `off` [default: 5371]
    #[arg(long, value_name = "GROUP", help_heading = "Kernel")]
    pub records_group: Option<RecordsGroup>,

    /// Where /metrics, /healthz and /readyz are served, or `off` [default: 127.0.0.1:9464]
    #[arg(long, value_name = "IP:PORT", help_heading = "Process")]
    pub http: Option<HttpAddress>,
    /// What must outlive the process [default: /var/lib/namegate]
    #[arg(long, value_name = "DIR", help_heading = "Process")]
    pub state_dir: Option<PathBuf>,
    /// Where the socket lies that `namegate status` and `namegate names` ask [default:
    /// /run/namegate]
    #[arg(long, value_name = "DIR", help_heading = "Process")]
    pub run_dir: Option<PathBuf>,
    /// Replace the agent that serves --run-dir, if there is one; whoever started that one ends it
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Process")]
    pub take_over: Option<bool>,
    /// Start the agent again at once when it dies, with the sockets that lookups wait in [default:
    /// false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Process")]
    pub supervise: Option<bool>,
}

impl AgentOptions {
    /// What is said here, and what `below` says where nothing is said here. Lists are replaced, not
    /// joined.
    ///
    /// Taken apart and put together exhaustively: a forgotten option does not compile.
    pub fn over(self, below: AgentOptions) -> AgentOptions {
        fn list<T>(above: Vec<T>, below: Vec<T>) -> Vec<T> {
            if above.is_empty() { below } else { above }
        }
        let AgentOptions {
            objects,
            kubeconfig,
            node,
            cluster_cidr,
            startup_taint,
            cluster_domain,
            cluster_dns,
            upstream,
            upstream_ca,
            listen,
            intercept,
            tproxy_mark,
            tproxy_table,
            tproxy_port,
            dns_questions,
            dns_match,
            dns_denied,
            encrypted_dns_discovery,
            fail_mode,
            commit_deadline,
            dns_cache,
            dns_cache_stale,
            min_ttl,
            max_ttl,
            grace,
            max_names,
            max_addresses_per_name,
            allow_rebind,
            private_addresses,
            table,
            deny_response,
            unknown_pods,
            set_capacity,
            records_group,
            http,
            state_dir,
            run_dir,
            take_over,
            supervise,
        } = self;
        AgentOptions {
            // They exclude each other: one of the command line stands for the choice.
            objects: objects.or(below.objects.filter(|_| kubeconfig.is_none())),
            kubeconfig: kubeconfig.or(below.kubeconfig),
            node: node.or(below.node),
            cluster_cidr: list(cluster_cidr, below.cluster_cidr),
            startup_taint: startup_taint.or(below.startup_taint),
            cluster_domain: cluster_domain.or(below.cluster_domain),
            cluster_dns: list(cluster_dns, below.cluster_dns),
            upstream: list(upstream, below.upstream),
            upstream_ca: upstream_ca.or(below.upstream_ca),
            listen: list(listen, below.listen),
            intercept: intercept.or(below.intercept),
            tproxy_mark: tproxy_mark.or(below.tproxy_mark),
            tproxy_table: tproxy_table.or(below.tproxy_table),
            tproxy_port: tproxy_port.or(below.tproxy_port),
            dns_questions: dns_questions.or(below.dns_questions),
            dns_match: dns_match.or(below.dns_match),
            dns_denied: dns_denied.or(below.dns_denied),
            encrypted_dns_discovery: encrypted_dns_discovery.or(below.encrypted_dns_discovery),
            fail_mode: fail_mode.or(below.fail_mode),
            commit_deadline: commit_deadline.or(below.commit_deadline),
            dns_cache: dns_cache.or(below.dns_cache),
            dns_cache_stale: dns_cache_stale.or(below.dns_cache_stale),
            min_ttl: min_ttl.or(below.min_ttl),
            max_ttl: max_ttl.or(below.max_ttl),
            grace: grace.or(below.grace),
            max_names: max_names.or(below.max_names),
            max_addresses_per_name: max_addresses_per_name.or(below.max_addresses_per_name),
            allow_rebind: list(allow_rebind, below.allow_rebind),
            private_addresses: private_addresses.or(below.private_addresses),
            table: table.or(below.table),
            deny_response: deny_response.or(below.deny_response),
            unknown_pods: unknown_pods.or(below.unknown_pods),
            set_capacity: set_capacity.or(below.set_capacity),
            records_group: records_group.or(below.records_group),
            http: http.or(below.http),
            state_dir: state_dir.or(below.state_dir),
            run_dir: run_dir.or(below.run_dir),
            take_over: take_over.or(below.take_over),
            supervise: supervise.or(below.supervise),
        }
    }
}

/// `--intercept`; its parameters are options of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterceptionMode {
    /// Destination NAT.
    Dnat,
    /// Transparent proxying.
    Tproxy,
    /// None.
    Off,
}

/// An address of DNS: `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`. Port 53
/// unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsAddress(pub SocketAddr);

/// Why a text is not a [`DnsAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write an IP address, with a port if it is not 53: 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353")]
pub struct NotAnAddress;

impl FromStr for DnsAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let bracketed = || {
            let inside = text.strip_prefix('[')?.strip_suffix(']')?;
            Some(IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?))
        };
        if let Some(address) = text.parse::<IpAddr>().ok().or_else(bracketed) {
            return Ok(Self(SocketAddr::new(address, 53)));
        }
        text.parse().map(Self).map_err(|_| NotAnAddress)
    }
}

/// `--http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// Served there.
    At(SocketAddr),
    /// Not served.
    Off,
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::At)
                .map_err(|_| "write an address with a port, as in 127.0.0.1:9464, or `off`".into()),
        }
    }
}

/// `--records-group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsGroup {
    /// This NFLOG group.
    Group(u16),
    /// Packets are not recorded.
    Off,
}

impl FromStr for RecordsGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::Group)
                .map_err(|_| "write an NFLOG group, a number from 0 to 65535, or `off`".into()),
        }
    }
}

/// A packet mark, decimal or `0x` and hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMark(pub u32);

impl FromStr for PacketMark {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .map(Self)
    }
}

/// `NAMESPACE/NAME` of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // RFC 1123 labels, as Kubernetes requires of both.
        let is_label = |part: &str| {
            (1..=63).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err("write the Service's namespace and name, as in kube-system/kube-dns".into()),
        }
    }
}

/// A parser that takes one of a few words, and shows them in `--help`.
pub fn choice<T, const N: usize>(choices: [(&'static str, T); N]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(choices.map(|(word, _)| word)).try_map(move |given| {
        choices
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, value)| *value)
            // Not reached: the inner parser has let only these words pass.
            .ok_or("not one of the possible values")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_address_may_leave_out_port_53() {
        for (text, full) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(text.parse::<DnsAddress>().unwrap().0.to_string(), full);
        }
        for text in ["", "dns.example", "192.0.2.1:", "192.0.2.300", "[192.0.2.1]"] {
            assert!(text.parse::<DnsAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mark_may_be_written_in_hexadecimal() {
        assert_eq!("0x200000".parse(), Ok(PacketMark(0x20_0000)));
        assert_eq!("2097152".parse(), Ok(PacketMark(0x20_0000)));
        assert!("0x1ffffffff".parse::<PacketMark>().is_err());
    }

    #[test]
    fn a_service_needs_both_parts() {
        assert_eq!("a/b".parse::<ServiceName>().unwrap().to_string(), "a/b");
        for text in ["kube-dns", "/x", "x/", "a/b/c", "A/b"] {
            assert!(text.parse::<ServiceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_said_above_wins_and_lists_are_replaced() {
        let above = AgentOptions {
            table: Some("mine".into()),
            upstream: vec!["192.0.2.1".parse().unwrap()],
            ..AgentOptions::default()
        };
        let below = AgentOptions {
            table: Some("theirs".into()),
            node: Some("n".into()),
            upstream: vec!["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()],
            ..AgentOptions::default()
        };
        let both = above.over(below);
        assert_eq!(both.table.as_deref(), Some("mine"));
        assert_eq!(both.node.as_deref(), Some("n"));
        assert_eq!(both.upstream, ["192.0.2.1".parse().unwrap()]);
    }
}
