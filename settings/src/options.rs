//! The options of `namegate agent`, all of which may be left out.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dns_proxy::Rcode;
use enforcer::FailMode;
use ipnet::IpNet;
use policy::{DenyResponse, QuestionMode};

use super::dns_address::DnsAddress;
use super::layered::{Layered, layered};
use super::option_values::{HttpAddress, InterceptionMode, PacketMark, RecordsGroup, ServiceName, choice};
use super::upstream::UpstreamAddress;
use super::{EncryptedDnsDiscovery, NameMatching, PrivateAddresses, UnknownPods};

layered! {
/// What may stand on the command line and, under the same names, in the config file.
///
/// A new option is a field here and a line in [`resolve`](super::resolve), which gives it its
/// default and its place in [`Settings`](super::Settings). The key of the config file and the rule
/// that flags win follow from the field. Texts of defaults are written by hand, and a test compares
/// them with the values.
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
}

impl AgentOptions {
    /// These options, and those of `below` where these say nothing. Lists are replaced, not joined.
    pub fn over(self, mut below: AgentOptions) -> AgentOptions {
        if self.kubeconfig.is_some() {
            // The two exclude each other: one of them on the command line stands for the choice.
            below.objects = None;
        }
        Layered::over(self, below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
