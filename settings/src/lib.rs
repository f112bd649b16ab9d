//! The settings of the agent: flags over the config file over defaults.
//!
//! - [`options`]: the options, each declared whole: help, type, default, bounds. clap reads them.
//! - [`mod@file`]: the config file, which holds the same options in YAML; `layer`: flags over file.
//! - `option_values`, `bounds`, [`DnsAddress`], [`UpstreamAddress`]: how values are written.
//! - [`resolve`]: options and facts of the host → [`Settings`].

pub mod file;
pub mod options;
pub mod resolve;

mod bounds;
mod dns_address;
mod host;
mod layer;
mod option_values;
mod rejected;
mod upstream;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use dns_proxy::{CacheConfig, EncryptedUpstream};
use enforcer::{FailMode, Interception, LocalHost};
use fqdn_cache::{LeaseTiming, LedgerLimits};
use ipnet::IpNet;
use names::Name;
use policy::{DenyResponse, QuestionMode};
use state_dir::StateDir;
use thiserror::Error;

pub use dns_address::{DnsAddress, NotAnAddress};
pub use file::FileError;
pub use host::HostFacts;
pub use layer::OptionLayer;
pub use option_values::{
    ClusterPath, HttpAddress, HubbleAddress, InspectionMode, InterceptionMode, LogFormat, RecordsGroup, ServiceName,
    SocketGroup, WebAddress, choice,
};
pub use options::{
    AgentOptions, ClusterOptions, DEFAULT_CLUSTER_DNS, DEFAULT_CLUSTER_DOMAIN, DEFAULT_CLUSTER_NAME, DEFAULT_RUN_DIR,
    DEFAULT_STATE_DIR, DEFAULT_TABLE, InspectionOptions, KernelOptions, LeaseOptions, LookupOptions, ProcessOptions,
    RUN_DIR_VARIABLE, STATE_DIR_VARIABLE, TABLE_VARIABLE,
};
pub use rejected::RejectedOption;
pub use upstream::{NotAnUpstream, UpstreamAddress};

/// Everything that the agent's behaviour depends on, resolved and checked.
///
/// The groups at the end are read as they were given. The other fields follow from several options,
/// or from facts of the host.
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
    /// `--state-dir`: what must outlive the process (the ledger's snapshot, last good versions of
    /// objects); none in `exec`.
    pub state_dir: Option<StateDir>,
    /// `--intercept dnat|tproxy|off`, with `--tproxy-mark`, `--tproxy-table`, `--tproxy-port`.
    pub interception: Interception,
    /// `--dns-questions any|allowed-only`; `allowed-only` by default standalone.
    pub questions: QuestionMode,
    /// `--min-ttl`, `--max-ttl`, `--grace`.
    pub lease: LeaseTiming,
    /// `--max-names`, `--max-addresses-per-name`.
    pub limits: LedgerLimits,
    /// `--dns-cache`, `--dns-cache-stale`: the answer cache; none by default, since pods usually
    /// address a server that caches.
    pub cache: Option<CacheConfig>,

    /// `--table`: the nftables table, family inet.
    pub table: String,
    /// `--fail-mode`.
    pub fail_mode: FailMode,
    /// `--deny-response reject|drop`: what a refused packet gets.
    pub refusal: DenyResponse,
    /// `--unknown-pods`: what becomes of packets from addresses of this node's pod ranges that no
    /// Pod object names.
    pub unknown_pods: UnknownPods,
    /// `--local-host`: whether ingress policies decide about what this node itself sends.
    pub local_host: LocalHost,
    /// `--revoke`: which live flows are cut when policies do not allow them any more.
    pub revoke: Revocation,
    /// `--set-capacity`: live elements of each learned set; an address with a port is one.
    pub capacity: NonZeroU32,
    /// `--dns-match question|chain`.
    pub matching: NameMatching,
    /// `--allow-rebind CIDR` (repeatable): ranges that names may open although they are special.
    pub rebind: Vec<IpNet>,
    /// `--private-addresses`.
    pub private_addresses: PrivateAddresses,
    /// `--cluster-cidr CIDR` (repeatable): pod and service ranges, besides what the objects tell.
    pub cluster_cidrs: Vec<IpNet>,
    /// `--cluster-domain`, default `cluster.local`.
    pub cluster_domain: Name,
    /// `--cluster-name`.
    pub cluster_name: String,
    /// `--cluster` and `--cluster-kubeconfig`, by name.
    pub other_clusters: Vec<OtherClusterAddress>,
    /// `--cluster-dns NAMESPACE/NAME` (repeatable, default `kube-system/kube-dns`): Services whose
    /// addresses are trusted resolvers.
    pub cluster_dns: Vec<(String, String)>,
    /// `--records-group`: the NFLOG group of refused and audited packets; none in `exec`.
    pub records_group: Option<u16>,

    /// `--hubble`, with the files of TLS: where the observer API is served; nowhere by default.
    pub hubble: Option<HubblePlace>,

    /// What is told of the cluster besides its objects.
    pub cluster: ClusterOptions,
    /// What becomes of a lookup.
    pub lookups: LookupOptions,
    /// How connections are looked into.
    pub inspection: InspectionOptions,
    /// How long names hold addresses, how many, and which.
    pub leases: LeaseOptions,
    /// What stands in the kernel.
    pub kernel: KernelOptions,
    /// The process and its files.
    pub process: ProcessOptions,
}

impl Settings {
    /// The domains of names that belong to the cluster. Where there are others, the one of services
    /// that they share is among them (KEP-1645).
    pub fn cluster_domains(&self) -> Vec<Name> {
        let shared = (!self.other_clusters.is_empty()).then(|| Name::parse(CLUSTER_SET_DOMAIN).ok());
        let own = self.cluster_domain.clone();
        std::iter::once(own).chain(shared.flatten()).collect()
    }

    /// Where pods ask this upstream themselves: an encrypted one speaks plain DNS to them, as far
    /// as they know.
    pub fn asked_by_pods(&self, upstream: SocketAddr) -> SocketAddr {
        match self.encrypted.iter().any(|it| it.address == upstream) {
            true => SocketAddr::new(upstream.ip(), 53),
            false => upstream,
        }
    }
}

/// Where the observer API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubblePlace {
    /// On a Unix socket.
    Socket(PathBuf),
    /// On a port, over TLS.
    Port {
        /// The port.
        address: SocketAddr,
        /// The files of TLS.
        tls: HubbleTls,
    },
}

/// The files of the observer API's TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubbleTls {
    /// `--hubble-tls-cert`.
    pub certificate: PathBuf,
    /// `--hubble-tls-key`.
    pub key: PathBuf,
    /// `--hubble-tls-client-ca`.
    pub client_authorities: PathBuf,
}

/// Where another cluster's objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClusterAddress {
    /// The name of the cluster.
    pub name: String,
    /// What leads to it.
    pub lead: ClusterLead,
}

/// What leads to the objects of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterLead {
    /// The directory that they are in.
    Directory(PathBuf),
    /// A kubeconfig for its API server.
    Kubeconfig(PathBuf),
}

/// The domain of services that clusters share.
const CLUSTER_SET_DOMAIN: &str = "clusterset.local";

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
pub fn merge(flags: OptionLayer, config: Option<&Path>) -> Result<AgentOptions, ConfigError> {
    let said = match config {
        Some(path) => flags.over(file::read(path)?),
        None => flags,
    };
    Ok(said.options()?)
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

/// Which live flows are cut when policies do not allow them any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// Also those to an address that no lease holds, where it is not known which name led there.
    Strict,
    /// Those that are known to be denied.
    Attributed,
    /// None.
    Off,
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
