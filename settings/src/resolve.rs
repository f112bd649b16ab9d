//! Options and facts of the host → settings.

mod resolvers;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns_proxy::CacheConfig;
use dns_proxy::Rcode;
use enforcer::{FailMode, Interception, records};
use fqdn_cache::{LeaseTiming, LedgerLimits};
use names::Name;
use policy::{DenyResponse, QuestionMode};
use state_dir::StateDir;

use super::bounds::{
    COMMIT_DEADLINE, DNS_CACHE, DNS_CACHE_STALE, GRACE, HumanDuration, MAX_ADDRESSES, MAX_NAMES, MAX_TTL, MIN_TTL,
    SET_CAPACITY, TPROXY_PORT, TPROXY_TABLE, within,
};
use super::host::HostFacts;
use super::option_values::{HttpAddress, InterceptionMode, PacketMark, RecordsGroup};
use super::rejected::{RejectedOption, rejected};
use super::{AgentOptions, EncryptedDnsDiscovery, NameMatching, PrivateAddresses, Settings, UnknownPods};

use resolvers::{encrypted, listeners, upstreams};

/// The nftables table (`--table`).
pub const DEFAULT_TABLE: &str = "namegate";
/// The state directory (`--state-dir`).
pub const DEFAULT_STATE_DIR: &str = "/var/lib/namegate";
/// The run directory (`--run-dir`).
pub const DEFAULT_RUN_DIR: &str = "/run/namegate";

const DEFAULT_HTTP: &str = "127.0.0.1:9464";
/// The DNS domain of the cluster (`--cluster-domain`).
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";
/// The namespace and name of the Service that resolves (`--cluster-dns`).
pub const DEFAULT_CLUSTER_DNS: (&str, &str) = ("kube-system", "kube-dns");
/// In no field of kube-proxy (0x4000, 0x8000), kube-router (0x10000, 0x20000), Calico (0xffff0000),
/// Cilium (0xf00) or AWS (0x80).
const DEFAULT_TPROXY_MARK: u32 = 0x1000;

/// Fills in defaults and checks every value. Where objects come from, and whether the agent is
/// supervised, are no settings: the caller has taken them.
pub fn resolve(options: AgentOptions, host: &HostFacts) -> Result<Settings, RejectedOption> {
    let AgentOptions {
        objects,
        kubeconfig: _,
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
        supervise: _,
    } = options;

    let listen = listeners(listen)?;
    Ok(Settings {
        node: node_name(node, host)?,
        encrypted: encrypted(&upstream, upstream_ca.as_deref())?,
        upstreams: upstreams(upstream, &listen, host)?,
        listen,
        http: http_address(http)?,
        state_dir: Some(StateDir::new(absolute("state-dir", state_dir, DEFAULT_STATE_DIR)?)),
        run_dir: Some(absolute("run-dir", run_dir, DEFAULT_RUN_DIR)?),
        take_over: take_over.unwrap_or(false),
        table: table_name(table)?,
        fail_mode: fail_mode.unwrap_or(FailMode::Open),
        interception: interception(intercept, tproxy_mark, tproxy_table, tproxy_port)?,
        refusal: deny_response.unwrap_or(DenyResponse::Reject),
        unknown_pods: unknown_pods.unwrap_or(UnknownPods::Allow),
        capacity: NonZeroU32::new(within(SET_CAPACITY, set_capacity)?).unwrap_or(NonZeroU32::MIN),
        // In a cluster, policies say who may ask what; a directory is one machine's, where nothing
        // else asks.
        questions: dns_questions.unwrap_or(match objects {
            Some(_) => QuestionMode::AllowedOnly,
            None => QuestionMode::Any,
        }),
        matching: dns_match.unwrap_or(NameMatching::Question),
        denied: dns_denied.unwrap_or(Rcode::NxDomain),
        encrypted_dns_discovery: encrypted_dns_discovery.unwrap_or(EncryptedDnsDiscovery::Deny),
        lease: lease_terms(min_ttl, max_ttl, grace)?,
        limits: LedgerLimits {
            names: NonZeroUsize::new(within(MAX_NAMES, max_names)?).unwrap_or(NonZeroUsize::MIN),
            addresses_per_name: NonZeroUsize::new(within(MAX_ADDRESSES, max_addresses_per_name)?)
                .unwrap_or(NonZeroUsize::MIN),
        },
        rebind: allow_rebind,
        private_addresses: private_addresses.unwrap_or(PrivateAddresses::Allow),
        cluster_cidrs: cluster_cidr,
        startup_taint: taint(startup_taint)?,
        cluster_domain: domain(cluster_domain)?,
        cluster_dns: match cluster_dns.is_empty() {
            true => vec![(DEFAULT_CLUSTER_DNS.0.into(), DEFAULT_CLUSTER_DNS.1.into())],
            false => cluster_dns.into_iter().map(|it| (it.namespace, it.name)).collect(),
        },
        records_group: match records_group {
            Some(RecordsGroup::Off) => None,
            Some(RecordsGroup::Group(group)) => Some(group),
            None => Some(records::DEFAULT_GROUP),
        },
        commit_deadline: within(COMMIT_DEADLINE, commit_deadline.map(HumanDuration))?.0,
        cache: cache(dns_cache, dns_cache_stale)?,
    })
}

/// The key of a taint, which is a qualified name of Kubernetes.
fn taint(given: Option<String>) -> Result<Option<String>, RejectedOption> {
    let is_name = |key: &String| {
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=63).contains(&name.len())
            && prefix.len() <= 253
            && key.bytes().filter(|byte| *byte != b'/').all(fits)
            && !prefix.contains('/')
    };
    match given {
        Some(key) if !is_name(&key) => {
            let reason = "write the key of a taint, as in namegate.io/agent-not-ready, without its value and effect";
            Err(rejected("startup-taint", format_args!("{key:?}"), reason))
        }
        given => Ok(given),
    }
}

fn node_name(given: Option<String>, host: &HostFacts) -> Result<String, RejectedOption> {
    let name = given.unwrap_or_else(|| host.name.clone());
    if name.trim().is_empty() {
        return Err(RejectedOption::NoNode);
    }
    Ok(name)
}

fn http_address(given: Option<HttpAddress>) -> Result<Option<SocketAddr>, RejectedOption> {
    Ok(match given {
        Some(HttpAddress::Off) => None,
        Some(HttpAddress::At(address)) => Some(address),
        None => Some(
            DEFAULT_HTTP
                .parse()
                .map_err(|_| rejected("http", DEFAULT_HTTP, "not an address"))?,
        ),
    })
}

fn absolute(option: &'static str, given: Option<PathBuf>, default: &str) -> Result<PathBuf, RejectedOption> {
    let path = given.unwrap_or_else(|| default.into());
    if path == Path::new("/") {
        return Err(rejected(option, path.display(), "it needs a directory of its own"));
    }
    std::path::absolute(&path).map_err(|error| rejected(option, path.display(), error))
}

fn table_name(given: Option<String>) -> Result<String, RejectedOption> {
    let name = given.unwrap_or_else(|| DEFAULT_TABLE.into());
    let mut bytes = name.bytes();
    let fits = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        && name.len() <= 64;
    if !fits {
        let reason = "an nftables name here starts with a letter and has at most 64 letters, digits, '_' and '-'";
        return Err(rejected("table", format_args!("{name:?}"), reason));
    }
    Ok(name)
}

fn interception(
    mode: Option<InterceptionMode>,
    mark: Option<PacketMark>,
    table: Option<u32>,
    port: Option<u16>,
) -> Result<Interception, RejectedOption> {
    // Checked in every mode: a wrong value should not wait for the day that the mode is switched.
    let mark = mark.map_or(DEFAULT_TPROXY_MARK, |PacketMark(bits)| bits);
    let mark = NonZeroU32::new(mark).ok_or_else(|| rejected("tproxy-mark", 0, "a mark without bits marks nothing"))?;
    let routing_table = within(TPROXY_TABLE, table)?;
    // RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL (linux/rtnetlink.h).
    if (253..=255).contains(&routing_table) {
        let reason = "253 to 255 are the kernel's own tables; choose another number";
        return Err(rejected("tproxy-table", routing_table, reason));
    }
    let port = within(TPROXY_PORT, port)?;
    Ok(match mode.unwrap_or(InterceptionMode::Dnat) {
        InterceptionMode::Dnat => Interception::Dnat,
        InterceptionMode::Off => Interception::Off,
        InterceptionMode::Tproxy => Interception::Tproxy {
            mark,
            routing_table,
            port,
        },
    })
}

fn lease_terms(
    min_ttl: Option<Duration>,
    max_ttl: Option<Duration>,
    grace: Option<Duration>,
) -> Result<LeaseTiming, RejectedOption> {
    let min_ttl = within(MIN_TTL, min_ttl.map(HumanDuration))?;
    let max_ttl = within(MAX_TTL, max_ttl.map(HumanDuration))?;
    if min_ttl > max_ttl {
        return Err(rejected(
            "min-ttl",
            min_ttl,
            format_args!("it is longer than --max-ttl, {max_ttl}"),
        ));
    }
    Ok(LeaseTiming {
        min_ttl: min_ttl.0,
        max_ttl: max_ttl.0,
        grace: within(GRACE, grace.map(HumanDuration))?.0,
    })
}

fn cache(entries: Option<usize>, stale: Option<Duration>) -> Result<Option<CacheConfig>, RejectedOption> {
    // Checked even when there is no cache: a wrong value should not wait for the day that it is
    // switched on.
    let stale_for = within(DNS_CACHE_STALE, stale.map(HumanDuration))?.0;
    let entries = NonZeroUsize::new(within(DNS_CACHE, entries)?);
    Ok(entries.map(|entries| CacheConfig { entries, stale_for }))
}

fn domain(given: Option<String>) -> Result<Name, RejectedOption> {
    let text = given.as_deref().unwrap_or(DEFAULT_CLUSTER_DOMAIN);
    let name = Name::parse(text).map_err(|error| rejected("cluster-domain", format_args!("{text:?}"), error))?;
    if name == Name::root() {
        let reason = "every name lies under the root, so every question would be allowed";
        return Err(rejected("cluster-domain", format_args!("{text:?}"), reason));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
