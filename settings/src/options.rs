//! The options of `namegate agent`, in the groups that `--help` shows.
//!
//! A field declares its option whole: flag and key of the config file (the field's name), help,
//! type, default, and bounds with their reason. Groups that are fields of
//! [`Settings`](super::Settings), too, are read where their options are used. What the other groups
//! say means something only together, or with facts of the host: [`resolve`](super::resolve) makes
//! settings of them.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Arg, ArgAction, Args, value_parser};
use dns_proxy::{MOST_WORKERS, Rcode};
use enforcer::{FailMode, LocalHost, records};
use ipnet::IpNet;
use names::Name;
use policy::{DenyResponse, QuestionMode};

use super::bounds::{duration_within, duration_within_day, within};
use super::dns_address::DnsAddress;
use super::option_values::{
    ClusterPath, DEFAULT_HTTP_PORT, HttpAddress, HubbleAddress, InspectionMode, InterceptionMode, LogFormat,
    RecordsGroup, ServiceName, SocketGroup, WebAddress, choice, cluster_domain, cluster_name, cluster_path,
    own_directory, packet_mark, routing_table, table_name, taint_key,
};
use super::upstream::UpstreamAddress;
use super::{EncryptedDnsDiscovery, NameMatching, PrivateAddresses, Revocation, UnknownPods};

/// The nftables table (`--table`).
pub const DEFAULT_TABLE: &str = "namegate";
/// The state directory (`--state-dir`).
pub const DEFAULT_STATE_DIR: &str = "/var/lib/namegate";
/// The run directory (`--run-dir`).
pub const DEFAULT_RUN_DIR: &str = "/run/namegate";
/// The environment variable that stands for `--table`.
pub const TABLE_VARIABLE: &str = "NAMEGATE_TABLE";
/// The environment variable that stands for `--state-dir`.
pub const STATE_DIR_VARIABLE: &str = "NAMEGATE_STATE_DIR";
/// The environment variable that stands for `--run-dir`.
pub const RUN_DIR_VARIABLE: &str = "NAMEGATE_RUN_DIR";
/// The name of the cluster (`--cluster-name`), which Cilium gives to one that has none.
pub const DEFAULT_CLUSTER_NAME: &str = "default";
/// The DNS domain of the cluster (`--cluster-domain`).
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";
/// The namespace and name of the Service that resolves (`--cluster-dns`).
pub const DEFAULT_CLUSTER_DNS: (&str, &str) = ("kube-system", "kube-dns");

/// What may stand on the command line and, under the same names, in the config file.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(mut_args(show_default))]
pub struct AgentOptions {
    /// Where objects come from.
    #[command(flatten)]
    pub objects: ObjectOptions,
    /// The cluster that they describe.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Whom the agent asks, and where it is asked.
    #[command(flatten)]
    pub resolvers: ResolverOptions,
    /// How lookups reach the agent.
    #[command(flatten)]
    pub interception: InterceptionOptions,
    /// What becomes of a lookup.
    #[command(flatten)]
    pub lookups: LookupOptions,
    /// How long names hold addresses, how many, and which.
    #[command(flatten)]
    pub leases: LeaseOptions,
    /// How connections are looked into.
    #[command(flatten)]
    pub inspection: InspectionOptions,
    /// What stands in the kernel.
    #[command(flatten)]
    pub kernel: KernelOptions,
    /// The process and its files.
    #[command(flatten)]
    pub process: ProcessOptions,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Objects")]
pub struct ObjectOptions {
    /// Directory of Kubernetes objects in YAML or JSON, watched for changes
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub objects: Option<PathBuf>,
    /// Watch the cluster of this kubeconfig in place of --objects [default: the cluster that this
    /// is a Pod of]
    #[arg(long, value_name = "FILE", conflicts_with = "objects")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node; a Pod whose spec.nodeName is another is not local [default: the host's
    /// name]
    #[arg(long, value_name = "NAME", env = "NAMEGATE_NODE", hide_env_values = true)]
    pub node: Option<String>,
}

/// What is told of the cluster besides its objects.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Objects")]
pub struct ClusterOptions {
    /// Pod or service range, besides what the objects tell; names never open it (repeatable)
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Vec<IpNet>,
    /// Take the taint with this key from the node when the agent is ready [default: none]
    #[arg(long, value_name = "KEY", value_parser = taint_key)]
    pub startup_taint: Option<String>,
    /// Name of this cluster, which `io.cilium.k8s.policy.cluster` of its pods is
    #[arg(long, value_name = "NAME", value_parser = cluster_name, default_value = DEFAULT_CLUSTER_NAME)]
    pub cluster_name: String,
    /// Another cluster, whose pods and nodes are peers: its name, and a directory of its objects
    /// (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = cluster_path)]
    pub cluster: Vec<ClusterPath>,
    /// The same, with a kubeconfig; the file may write both as `clusters: [{name, kubeconfig}]`
    /// (repeatable)
    #[arg(long, value_name = "NAME=FILE", value_parser = cluster_path)]
    pub cluster_kubeconfig: Vec<ClusterPath>,
    /// The cluster's DNS domain
    #[arg(long, value_name = "DOMAIN", value_parser = cluster_domain, default_value = DEFAULT_CLUSTER_DOMAIN)]
    pub cluster_domain: Name,
    /// Service whose addresses are trusted resolvers (repeatable)
    #[arg(long, value_name = "NAMESPACE/NAME", default_values_t = [ServiceName::new(DEFAULT_CLUSTER_DNS)])]
    pub cluster_dns: Vec<ServiceName>,
}

/// Whom the agent asks, and where it is asked.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "DNS")]
pub struct ResolverOptions {
    /// Resolver to ask, in order of preference; encrypted: tls://IP#NAME, https://IP/PATH#NAME,
    /// quic://IP#NAME (repeatable) [default: the nameservers of /etc/resolv.conf]
    #[arg(long, value_name = "IP[:PORT]|URL")]
    pub upstream: Vec<UpstreamAddress>,
    /// Certificates of authorities, in PEM, that encrypted upstreams are checked against [default:
    /// the system's]
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// Serve as a plain resolver there (repeatable)
    #[arg(long, value_name = "IP[:PORT]")]
    pub listen: Vec<DnsAddress>,
}

/// How lookups reach the agent.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "DNS")]
pub struct InterceptionOptions {
    /// How lookups of governed workloads reach the agent; `off`: they are told to ask --listen
    #[arg(
        long,
        value_name = "MODE",
        value_parser = choice([
            ("dnat", InterceptionMode::Dnat),
            ("tproxy", InterceptionMode::Tproxy),
            ("off", InterceptionMode::Off),
        ]),
        default_value = "dnat",
    )]
    pub intercept: InterceptionMode,
    /// With --intercept tproxy: the packet mark's bits, which no other program may use
    //
    // In no field of kube-proxy (0x4000, 0x8000), kube-router (0x10000, 0x20000), Calico
    // (0xffff0000), Cilium (0xf00) or AWS (0x80).
    #[arg(long, value_name = "BITS", value_parser = packet_mark(), default_value = "0x1000")]
    pub tproxy_mark: NonZeroU32,
    /// With --intercept tproxy: the routing table for marked packets
    #[arg(long, value_name = "TABLE", value_parser = routing_table(), default_value = "5353")]
    pub tproxy_table: u32,
    /// With --intercept tproxy: the port of the transparent sockets
    #[arg(
        long,
        value_name = "PORT",
        value_parser = within(value_parser!(u16), 1..=u16::MAX, "0 is no port"),
        default_value = "15353",
    )]
    pub tproxy_port: u16,
}

/// What becomes of a lookup.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "DNS")]
pub struct LookupOptions {
    /// What may be asked where no policy has a DNS rule [default: any in a cluster, allowed-only
    /// with --objects]
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = choice([("any", QuestionMode::Any), ("allowed-only", QuestionMode::AllowedOnly)]),
    )]
    pub dns_questions: Option<QuestionMode>,
    /// Whether toFQDNs is matched against the name asked, or also against its CNAME chain
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = choice([("question", NameMatching::Question), ("chain", NameMatching::Chain)]),
        default_value = "question",
    )]
    pub dns_match: NameMatching,
    /// How a denied question is answered
    #[arg(
        long,
        value_name = "HOW",
        value_parser = choice([("nxdomain", Rcode::NxDomain), ("refused", Rcode::Refused)]),
        default_value = "nxdomain",
    )]
    pub dns_denied: Rcode,
    /// Whether clients may find encrypted DNS by themselves (use-application-dns.net,
    /// resolver.arpa)
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice([("allow", EncryptedDnsDiscovery::Allow), ("deny", EncryptedDnsDiscovery::Deny)]),
        default_value = "deny",
    )]
    pub encrypted_dns_discovery: EncryptedDnsDiscovery,
    /// What becomes of lookups when the agent is gone: they pass unobserved, or are refused
    #[arg(
        long,
        value_name = "MODE",
        value_parser = choice([("open", FailMode::Open), ("closed", FailMode::Closed)]),
        default_value = "open",
    )]
    pub fail_mode: FailMode,
    /// How long an answer waits for the kernel before SERVFAIL
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_within(
            Duration::from_millis(10)..=Duration::from_secs(5),
            "another agent's transaction can hold the kernel up for 80ms, and clients ask again after 5s",
        ),
        default_value = "1s",
    )]
    pub commit_deadline: Duration,
    /// Threads that do lookups, each with sockets of its own [default: half of the processors, one
    /// to four]
    #[arg(
        long,
        value_name = "N",
        value_parser = within(
            usize::from_str,
            1..=MOST_WORKERS,
            "one answers some hundred thousand lookups a second, and each has sockets and some MiB of its own",
        ),
    )]
    pub workers: Option<usize>,
    /// Keep answers for their TTL, so many at once; 0: ask for each lookup
    #[arg(
        long,
        value_name = "N",
        value_parser = within(usize::from_str, 0..=10_000_000, "each answer takes some 500 bytes of memory"),
        default_value = "0",
    )]
    pub dns_cache: usize,
    /// With --dns-cache: how long past its TTL an answer is given when no upstream answers; 0s: not
    /// at all
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_within(
            Duration::ZERO..=Duration::from_secs(259_200),
            "RFC 8767 section 5 suggests one to three days at most",
        ),
        default_value = "24h",
    )]
    pub dns_cache_stale: Duration,
}

/// How long names hold addresses, how many, and which.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Leases")]
pub struct LeaseOptions {
    /// TTLs below this count as this
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_within_day("a longer one keeps addresses open that the name has left"),
        default_value = "0s",
    )]
    pub min_ttl: Duration,
    /// TTLs above this count as this
    //
    // RFC 2181 §8 allows a cap.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_within(
            Duration::from_secs(1)..=Duration::from_secs(604_800),
            "RFC 8767 §4 recommends to cap at seven days",
        ),
        default_value = "24h",
    )]
    pub max_ttl: Duration,
    /// How much longer than its TTL an address stays allowed
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_within_day("a longer one keeps addresses open that the name has left"),
        default_value = "30s",
    )]
    pub grace: Duration,
    /// Names remembered at once
    #[arg(
        long,
        value_name = "N",
        value_parser = within(usize::from_str, 1..=10_000_000, "each takes some hundred bytes of memory")
            .try_map(NonZeroUsize::try_from),
        default_value = "100000",
    )]
    pub max_names: NonZeroUsize,
    /// Addresses remembered for one name
    #[arg(
        long,
        value_name = "N",
        value_parser = within(usize::from_str, 1..=100_000, "one answer holds at most about 4,000 addresses")
            .try_map(NonZeroUsize::try_from),
        default_value = "1000",
    )]
    pub max_addresses_per_name: NonZeroUsize,
    /// Range that names may open although it is loopback, link-local or inside the cluster
    /// (repeatable)
    #[arg(long, value_name = "CIDR")]
    pub allow_rebind: Vec<IpNet>,
    /// Whether names may open private addresses (RFC 1918, 100.64.0.0/10, fc00::/7) outside
    /// --allow-rebind
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice([("allow", PrivateAddresses::Allow), ("deny", PrivateAddresses::Deny)]),
        default_value = "allow",
    )]
    pub private_addresses: PrivateAddresses,
}

/// How connections are looked into, where rules ask for TLS names or requests.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Connections")]
pub struct InspectionOptions {
    /// Whether connections are looked into where rules ask for TLS names or requests; `off`: what
    /// these rules speak of is refused
    #[arg(
        long,
        value_name = "MODE",
        value_parser = choice([("on", InspectionMode::On), ("off", InspectionMode::Off)]),
        default_value = "off",
    )]
    pub inspect: InspectionMode,
    /// The mark's bits of packets that are sent in a client's place, which no other program may use
    //
    // As `tproxy_mark`, and another bit than that.
    #[arg(long, value_name = "BITS", value_parser = packet_mark(), default_value = "0x2000")]
    pub inspect_mark: NonZeroU32,
    /// The mark's bits of the answers to these, which no other program may use
    #[arg(long, value_name = "BITS", value_parser = packet_mark(), default_value = "0x40")]
    pub inspect_reply_mark: NonZeroU32,
    /// The routing table for these answers
    #[arg(long, value_name = "TABLE", value_parser = routing_table(), default_value = "5354")]
    pub inspect_table: u32,
    /// The conntrack zone of connections that are made in a client's place
    #[arg(
        long,
        value_name = "ZONE",
        value_parser = within(value_parser!(u16), 1..=u16::MAX, "0 is the zone of all others"),
        default_value = "15354",
    )]
    pub inspect_zone: u16,
    /// The most connections of one Pod that are looked into at a time
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = within(value_parser!(u32), 1..=1_000_000, "each holds two sockets"),
        default_value = "4096",
    )]
    pub inspect_pod_connections: u32,
    /// The most connections of all Pods that are looked into at a time
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = within(value_parser!(u32), 1..=1_000_000, "each holds two sockets"),
        default_value = "65536",
    )]
    pub inspect_connections: u32,
    /// How long an agent that another one follows goes on with the connections that it has
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_within_day("the process stays for as long"),
        default_value = "10m",
    )]
    pub inspect_drain: Duration,
}

/// What stands in the kernel.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Kernel")]
pub struct KernelOptions {
    /// The nftables table, in family inet
    #[arg(
        long,
        value_name = "NAME",
        value_parser = table_name,
        env = TABLE_VARIABLE,
        hide_env_values = true,
        default_value = DEFAULT_TABLE,
    )]
    pub table: String,
    /// What a refused packet gets: a reset or ICMP error, or nothing
    #[arg(
        long,
        value_name = "HOW",
        value_parser = choice([("reject", DenyResponse::Reject), ("drop", DenyResponse::Drop)]),
        default_value = "reject",
    )]
    pub deny_response: DenyResponse,
    /// What becomes of packets from addresses of this node's pod ranges that no Pod object names
    /// (yet)
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice([("allow", UnknownPods::Allow), ("deny", UnknownPods::Deny)]),
        default_value = "allow",
    )]
    pub unknown_pods: UnknownPods,
    /// What becomes of packets that this node itself sends to its pods (the kubelet's probes, Pods
    /// in the host's network): they always pass, or ingress policies decide about them too
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice([("always", LocalHost::Always), ("policy", LocalHost::Policy)]),
        default_value = "always",
    )]
    pub local_host: LocalHost,
    /// Which established flows are cut when policies do not allow them any more: those that are
    /// denied; with `strict` also those to an address whose name is not known and whose lease has
    /// ended
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = choice([
            ("strict", Revocation::Strict),
            ("attributed", Revocation::Attributed),
            ("off", Revocation::Off),
        ]),
        default_value = "attributed",
    )]
    pub revoke: Revocation,
    /// Elements that each learned set can hold: an address with a port is one
    #[arg(
        long,
        value_name = "N",
        value_parser = within(
            value_parser!(u32),
            1..=8_388_608,
            "the kernel keeps room for twice as many, about 150 bytes each",
        )
        .try_map(NonZeroU32::try_from),
        default_value = "65536",
    )]
    pub set_capacity: NonZeroU32,
    /// NFLOG group over which refused and audited packets are recorded, for `namegate drops`, or
    /// `off`
    #[arg(long, value_name = "GROUP", default_value_t = RecordsGroup::Group(records::DEFAULT_GROUP))]
    pub records_group: RecordsGroup,
}

/// The process and its files.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessOptions {
    /// Where /metrics, /healthz and /readyz are served, or `off`
    #[arg(long, value_name = "IP:PORT", default_value_t = HttpAddress::At(SocketAddr::from(([127, 0, 0, 1], DEFAULT_HTTP_PORT))))]
    pub http: HttpAddress,
    /// Show a page to browsers: `on`, with --http where that is a loopback address, otherwise at
    /// 127.0.0.1 on the same port; or at this address
    #[arg(
        long,
        value_name = "on|off|IP:PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        default_value_t = WebAddress::Off,
    )]
    pub web: WebAddress,
    /// What must outlive the process
    //
    // `None` in `exec`, as is `run_dir`.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = own_directory(),
        env = STATE_DIR_VARIABLE,
        hide_env_values = true,
        default_value = DEFAULT_STATE_DIR,
    )]
    pub state_dir: Option<PathBuf>,
    /// Where the socket lies that `namegate status` and `namegate names` ask
    #[arg(
        long,
        value_name = "DIR",
        value_parser = own_directory(),
        env = RUN_DIR_VARIABLE,
        hide_env_values = true,
        default_value = DEFAULT_RUN_DIR,
    )]
    pub run_dir: Option<PathBuf>,
    /// Group, by name or number, that may open that socket besides root: it shows which names and
    /// addresses workloads reach, and changes nothing [default: none]
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<SocketGroup>,
    /// Where the observer API of Hubble is served (gRPC), which shows what `namegate observe` does:
    /// unix:PATH, for root and --socket-group; IP:PORT, over TLS with certificates of both ends; or
    /// `off`
    #[arg(long, value_name = "WHERE", default_value_t = HubbleAddress::Off)]
    pub hubble: HubbleAddress,
    /// With --hubble IP:PORT: the certificate that is shown to clients, in PEM [default: none]
    #[arg(long, value_name = "FILE")]
    pub hubble_tls_cert: Option<PathBuf>,
    /// With --hubble IP:PORT: its key, in PEM [default: none]
    #[arg(long, value_name = "FILE")]
    pub hubble_tls_key: Option<PathBuf>,
    /// With --hubble IP:PORT: the authorities that certificates of clients come from, in PEM
    /// [default: none]
    #[arg(long, value_name = "FILE")]
    pub hubble_tls_client_ca: Option<PathBuf>,
    /// How the log is written; `json`: an object a line
    #[arg(
        long,
        value_name = "HOW",
        value_parser = choice([("text", LogFormat::Text), ("json", LogFormat::Json)]),
        default_value = "text",
    )]
    pub log_format: LogFormat,
    /// Replace the agent that serves --run-dir, if there is one; whoever started that one ends it
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false",
    )]
    pub take_over: bool,
    /// Start the agent again at once when it dies, with the sockets that lookups wait in
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false",
    )]
    pub supervise: bool,
}

/// Shows the default at the end of the help's sentence, where defaults that are told in words
/// stand.
fn show_default(option: Arg) -> Arg {
    let values = option.get_default_values();
    let texts: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
    match option.get_help() {
        Some(help) if !texts.is_empty() => {
            let help = format!("{help} [default: {}]", texts.join(", "));
            option.help(help).hide_default_value(true)
        }
        _ => option,
    }
}
