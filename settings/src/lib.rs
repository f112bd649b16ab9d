//! The settings of the agent: flags over the config file over defaults.
//!
//! - [`options`]: the options, which clap reads; `layered`: flags over the config file.
//! - [`mod@file`]: the config file, which holds the same options in YAML.
//! - `option_values`, [`DnsAddress`], [`UpstreamAddress`]: how values are written.
//! - [`resolve`]: options and facts of the host → [`Settings`], every value checked against its
//!   `bounds`.

pub mod file;
pub mod options;
pub mod resolve;

mod bounds;
mod dns_address;
mod host;
mod layered;
mod option_values;
mod rejected;
mod upstream;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns_proxy::Rcode;
use dns_proxy::{CacheConfig, EncryptedUpstream};
use enforcer::{FailMode, Interception};
use fqdn_cache::{LeaseTiming, LedgerLimits};
use ipnet::IpNet;
use names::Name;
use policy::{DenyResponse, QuestionMode};
use state_dir::StateDir;
use thiserror::Error;

pub use dns_address::{DnsAddress, NotAnAddress};
pub use file::FileError;
pub use host::HostFacts;
pub use option_values::{HttpAddress, InterceptionMode, PacketMark, RecordsGroup, ServiceName, choice};
pub use options::AgentOptions;
pub use rejected::RejectedOption;
pub use resolve::{DEFAULT_CLUSTER_DNS, DEFAULT_CLUSTER_DOMAIN, DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, DEFAULT_TABLE};
pub use upstream::{NotAnUpstream, UpstreamAddress};

/// Everything that the agent's behaviour depends on, resolved and checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--node`: this node's name; a Pod without `spec.nodeName` is local too.
    pub node: String,
    /// `--upstream`, in order; never empty. An encrypted one by its address, too.
    pub upstreams: Vec<SocketAddr>,
    /// How the encrypted ones of them are asked, checked against `--upstream-ca` or the system's
    /// authorities.
    pub encrypted: Vec<EncryptedUpstream>,
    /// `--listen`: where the agent serves as a plain resolver.
    pub listen: Vec<SocketAddr>,
    /// `--http`: `/metrics`, `/healthz`, `/readyz`; none in `exec`.
    pub http: Option<SocketAddr>,
    /// `--state-dir`: what must outlive the process (the ledger's snapshot, last good versions of
    /// objects); none in `exec`.
    pub state_dir: Option<StateDir>,
    /// `--run-dir`: the local API's socket; none in `exec`.
    pub run_dir: Option<PathBuf>,
    /// `--take-over`: the run directory may be another agent's, which is about to be ended.
    pub take_over: bool,
    /// `--table`: the nftables table, family inet.
    pub table: String,
    /// `--fail-mode`.
    pub fail_mode: FailMode,
    /// `--intercept dnat|tproxy|off`, with `--tproxy-mark`, `--tproxy-table`, `--tproxy-port`.
    pub interception: Interception,
    /// `--deny-response reject|drop`: what a refused packet gets.
    pub refusal: DenyResponse,
    /// `--unknown-pods`: what becomes of packets from addresses of this node's pod ranges that no
    /// Pod object names.
    pub unknown_pods: UnknownPods,
    /// `--set-capacity`: live elements of each learned set; an address with a port is one.
    pub capacity: NonZeroU32,
    /// `--dns-questions any|allowed-only`; `allowed-only` by default standalone.
    pub questions: QuestionMode,
    /// `--dns-match question|chain`.
    pub matching: NameMatching,
    /// `--dns-denied nxdomain|refused`: how a denied question is answered.
    pub denied: Rcode,
    /// `--encrypted-dns-discovery`: whether clients of governed endpoints are told that they may
    /// leave for encrypted DNS.
    pub encrypted_dns_discovery: EncryptedDnsDiscovery,
    /// `--min-ttl`, `--max-ttl`, `--grace`.
    pub lease: LeaseTiming,
    /// `--max-names`, `--max-addresses-per-name`.
    pub limits: LedgerLimits,
    /// `--allow-rebind CIDR` (repeatable): ranges that names may open although they are special.
    pub rebind: Vec<IpNet>,
    /// `--private-addresses`.
    pub private_addresses: PrivateAddresses,
    /// `--cluster-cidr CIDR` (repeatable): pod and service ranges, besides what the objects tell.
    pub cluster_cidrs: Vec<IpNet>,
    /// `--startup-taint`: the key of the taint that is taken from the node when the agent is ready.
    pub startup_taint: Option<String>,
    /// `--cluster-domain`, default `cluster.local`.
    pub cluster_domain: Name,
    /// `--cluster-dns NAMESPACE/NAME` (repeatable, default `kube-system/kube-dns`): Services whose
    /// addresses are trusted resolvers.
    pub cluster_dns: Vec<(String, String)>,
    /// `--records-group`: the NFLOG group of refused and audited packets; none in `exec`.
    pub records_group: Option<u16>,
    /// `--commit-deadline`: how long an answer waits for the kernel before SERVFAIL. Default 1 s.
    pub commit_deadline: Duration,
    /// `--dns-cache`, `--dns-cache-stale`: the answer cache; none by default, since pods usually
    /// address a server that caches.
    pub cache: Option<CacheConfig>,
}

impl Settings {
    /// Where pods ask this upstream themselves: an encrypted one speaks plain DNS to them, as far
    /// as they know.
    pub fn asked_by_pods(&self, upstream: SocketAddr) -> SocketAddr {
        match self.encrypted.iter().any(|it| it.address == upstream) {
            true => SocketAddr::new(upstream.ip(), 53),
            false => upstream,
        }
    }
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The config file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A value cannot be used, wherever it came from.
    #[error(transparent)]
    RejectedOption(#[from] RejectedOption),
}

/// Lays the flags over the config file.
pub fn merge(flags: AgentOptions, config: Option<&Path>) -> Result<AgentOptions, FileError> {
    Ok(match config {
        Some(path) => flags.over(file::read(path)?),
        None => flags,
    })
}

/// What becomes of packets from an address of this node's pod ranges as long as no Pod object names
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPods {
    /// They pass, as from any pod that no policy selects.
    Allow,
    /// They are refused: a pod is closed until it is known what it may reach.
    Deny,
}

/// What becomes of questions by which clients find out whether to leave for encrypted DNS by
/// themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptedDnsDiscovery {
    /// They are asked like any other.
    Allow,
    /// They are answered so that clients stay with the resolver that they have.
    Deny,
}

/// Whether names may open private addresses: what resolves to them is a company's own, or a
/// stranger's who points into the network that this machine is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateAddresses {
    /// They may.
    Allow,
    /// Only those of `--allow-rebind`.
    Deny,
}

/// Which names of an answer policies are matched against (`dns.match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameMatching {
    /// The question's name.
    Question,
    /// The question's name and the names of its validated chain.
    Chain,
}
