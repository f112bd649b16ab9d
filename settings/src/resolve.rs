//! Options and facts of the host → settings.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns_proxy::Rcode;
use dns_proxy::{CacheConfig, EncryptedUpstream};
use enforcer::{FailMode, Interception, records};
use fqdn_cache::{LeaseTerms, Limits};
use names::Name;
use policy::{DenyResponse, QuestionMode};
use state_dir::StateDir;
use thiserror::Error;

use super::bounds::{
    COMMIT_DEADLINE, DNS_CACHE, DNS_CACHE_STALE, GRACE, HumanDuration, MAX_ADDRESSES, MAX_NAMES, MAX_TTL, MIN_TTL,
    SET_CAPACITY, TPROXY_PORT, TPROXY_TABLE, within,
};
use super::options::{DnsAddress, HttpAddress, InterceptionMode, PacketMark, RecordsGroup};
use super::upstream;
use super::{
    AgentOptions, EncryptedDnsDiscovery, NameMatching, PrivateAddresses, Settings, UnknownPods, UpstreamAddress,
};

/// `--table`.
pub const DEFAULT_TABLE: &str = "namegate";
/// `--state-dir`.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/namegate";
/// `--run-dir`.
pub const DEFAULT_RUN_DIR: &str = "/run/namegate";

const DEFAULT_HTTP: &str = "127.0.0.1:9464";
/// `--cluster-domain`.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";
/// `--cluster-dns`: namespace and name of a Service.
pub const DEFAULT_CLUSTER_DNS: (&str, &str) = ("kube-system", "kube-dns");
/// In no field of kube-proxy (0x4000, 0x8000), kube-router (0x10000, 0x20000), Calico (0xffff0000),
/// Cilium (0xf00) or AWS (0x80).
const DEFAULT_TPROXY_MARK: u32 = 0x1000;

/// Why the options do not make settings.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RejectedOption {
    /// A value cannot be used.
    #[error("--{option} (or `{option}` in the config file) cannot be {value}: {reason}")]
    Value {
        /// Which option.
        option: &'static str,
        /// The value.
        value: String,
        /// Why not, and what to write instead.
        reason: String,
    },
    /// No resolver is known.
    #[error("no upstream resolver is known ({0}); name one with --upstream IP, or `upstream` in the config file")]
    NoUpstream(String),
    /// The host has no name.
    #[error("this host has no name; name the node with --node NAME, or `node` in the config file")]
    NoNode,
}

/// Facts of the host that defaults come from.
#[derive(Debug)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// The text of its `/etc/resolv.conf`.
    pub resolv_conf: io::Result<String>,
}

impl HostFacts {
    /// Reads them.
    pub fn read() -> Self {
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf"),
        }
    }
}

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
        limits: Limits {
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

fn listeners(given: Vec<DnsAddress>) -> Result<Vec<SocketAddr>, RejectedOption> {
    let mut listen = Vec::new();
    for DnsAddress(address) in given {
        if address.ip().is_multicast() {
            return Err(rejected("listen", address, "it is a multicast address"));
        }
        if !listen.contains(&address) {
            listen.push(address);
        }
    }
    Ok(listen)
}

fn upstreams(
    given: Vec<UpstreamAddress>,
    listen: &[SocketAddr],
    host: &HostFacts,
) -> Result<Vec<SocketAddr>, RejectedOption> {
    let candidates: Vec<SocketAddr> = if given.is_empty() {
        let text = host
            .resolv_conf
            .as_ref()
            .map_err(|error| RejectedOption::NoUpstream(format!("/etc/resolv.conf cannot be read: {error}")))?;
        // What the host itself uses is taken as it is, less what would make a loop.
        let found: Vec<_> = nameservers(text)
            .map(|ip| SocketAddr::new(ip, 53))
            .filter(|address| !answers_itself(*address, listen))
            .collect();
        if found.is_empty() {
            return Err(RejectedOption::NoUpstream("/etc/resolv.conf names none".into()));
        }
        found
    } else {
        given.iter().map(UpstreamAddress::address).collect()
    };
    let mut upstreams = Vec::new();
    for address in candidates {
        let refuse = |reason: &str| Err(rejected("upstream", address, reason));
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return refuse("a resolver has a unicast address");
        }
        if address.port() == 0 {
            return refuse("0 is no port");
        }
        if answers_itself(address, listen) {
            return refuse("the agent listens there itself (--listen), and would ask itself for ever");
        }
        if !upstreams.contains(&address) {
            upstreams.push(address);
        }
    }
    Ok(upstreams)
}

fn encrypted(
    given: &[UpstreamAddress],
    authorities_in: Option<&Path>,
) -> Result<Vec<EncryptedUpstream>, RejectedOption> {
    let mut encrypted: Vec<EncryptedUpstream> = Vec::new();
    let mut authorities = None;
    for (place, upstream) in given.iter().enumerate() {
        let UpstreamAddress::Encrypted {
            address,
            protocol,
            name,
        } = upstream
        else {
            continue;
        };
        let others = given.iter().take(place).chain(given.iter().skip(place + 1));
        if others
            .clone()
            .any(|other| other.address() == *address && other != upstream)
        {
            let reason = "another upstream has the same address and port, and answers are told apart by these";
            return Err(rejected("upstream", upstream, reason));
        }
        if encrypted.iter().any(|it| it.address == *address) {
            continue;
        }
        if authorities.is_none() {
            let found = upstream::authorities(authorities_in).map_err(|reason| match authorities_in {
                Some(file) => rejected("upstream-ca", file.display(), reason),
                None => rejected("upstream", upstream, reason),
            })?;
            authorities = Some(found);
        }
        let one = EncryptedUpstream {
            address: *address,
            protocol: protocol.clone(),
            name: name.clone(),
            authorities: authorities.clone().unwrap_or_default(),
        };
        one.check().map_err(|why| rejected("upstream", upstream, why))?;
        encrypted.push(one);
    }
    Ok(encrypted)
}

fn answers_itself(upstream: SocketAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|own| {
        own.port() == upstream.port()
            && (own.ip() == upstream.ip() || own.ip().is_unspecified() && upstream.ip().is_loopback())
    })
}

/// The `nameserver` lines of resolv.conf(5). Addresses that cannot be used as such (a zone by
/// interface name) are left out.
fn nameservers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
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
) -> Result<LeaseTerms, RejectedOption> {
    let min_ttl = within(MIN_TTL, min_ttl.map(HumanDuration))?;
    let max_ttl = within(MAX_TTL, max_ttl.map(HumanDuration))?;
    if min_ttl > max_ttl {
        return Err(rejected(
            "min-ttl",
            min_ttl,
            format_args!("it is longer than --max-ttl, {max_ttl}"),
        ));
    }
    Ok(LeaseTerms {
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

fn rejected(option: &'static str, value: impl fmt::Display, reason: impl fmt::Display) -> RejectedOption {
    RejectedOption::Value {
        option,
        value: value.to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            name: "node-1".into(),
            resolv_conf: Ok("# generated\nsearch example\nnameserver 192.0.2.53\nnameserver 2001:db8::53 # two\nnameserver fe80::1%eth0\n".into()),
        }
    }

    fn refused(options: AgentOptions) -> String {
        resolve(options, &host()).unwrap_err().to_string()
    }

    #[test]
    fn encrypted_upstreams_are_checked_before_they_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let options = |upstreams: &[&str], authorities: &Path| AgentOptions {
            upstream: upstreams.iter().map(|text| text.parse().unwrap()).collect(),
            upstream_ca: Some(authorities.to_owned()),
            ..AgentOptions::default()
        };
        std::fs::write(&file, "no certificate\n").unwrap();
        let message = refused(options(&["tls://192.0.2.53"], &file));
        assert!(
            message.contains("--upstream-ca") && message.contains("no certificate in PEM"),
            "{message}"
        );
        assert!(
            resolve(options(&["192.0.2.53"], &file), &host()).is_ok(),
            "a plain one needs none"
        );
        let message = refused(options(&["tls://192.0.2.53", "quic://192.0.2.53"], &file));
        assert!(message.contains("same address and port"), "{message}");
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = resolve(AgentOptions::default(), &host()).unwrap();
        assert_eq!(settings.node, "node-1");
        assert_eq!(
            settings.upstreams,
            ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]
        );
        assert!(settings.listen.is_empty());
        assert_eq!(settings.http, Some("127.0.0.1:9464".parse().unwrap()));
        assert_eq!(settings.state_dir.as_deref(), Some(Path::new("/var/lib/namegate")));
        assert_eq!(settings.run_dir.as_deref(), Some(Path::new("/run/namegate")));
        assert_eq!(settings.table, "namegate");
        assert_eq!(settings.fail_mode, FailMode::Open);
        assert_eq!(settings.interception, Interception::Dnat);
        assert_eq!(settings.refusal, DenyResponse::Reject);
        assert_eq!(settings.capacity.get(), 65_536);
        assert_eq!(settings.questions, QuestionMode::Any);
        let standalone = AgentOptions {
            objects: Some("/objects".into()),
            ..AgentOptions::default()
        };
        assert_eq!(
            resolve(standalone, &host()).unwrap().questions,
            QuestionMode::AllowedOnly
        );
        assert_eq!(settings.unknown_pods, UnknownPods::Allow);
        assert_eq!(settings.private_addresses, PrivateAddresses::Allow);
        assert_eq!(settings.matching, NameMatching::Question);
        assert_eq!(settings.denied, Rcode::NxDomain);
        assert_eq!(settings.encrypted_dns_discovery, EncryptedDnsDiscovery::Deny);
        assert_eq!(settings.lease, LeaseTerms::default());
        assert_eq!(settings.limits, Limits::default());
        assert_eq!(settings.cluster_domain.as_str(), "cluster.local.");
        assert_eq!(settings.cluster_dns, [("kube-system".into(), "kube-dns".into())]);
        assert_eq!(settings.commit_deadline, Duration::from_secs(1));
        assert_eq!(settings.records_group, Some(5371));
        assert_eq!(settings.cache, None);
    }

    #[test]
    fn a_startup_taint_is_a_key_alone() {
        let taint = |key: &str| {
            resolve(
                AgentOptions {
                    startup_taint: Some(key.into()),
                    ..AgentOptions::default()
                },
                &host(),
            )
            .map(|it| it.startup_taint)
        };
        for key in ["namegate.io/agent-not-ready", "starting"] {
            assert_eq!(taint(key).unwrap().as_deref(), Some(key));
        }
        for key in ["", "a/b/c", "key=value", "key:NoSchedule", "x/"] {
            assert!(taint(key).is_err(), "{key}");
        }
    }

    #[test]
    fn records_have_a_group_or_are_off() {
        for (given, group) in [(RecordsGroup::Off, None), (RecordsGroup::Group(7), Some(7))] {
            let options = AgentOptions {
                records_group: Some(given),
                ..AgentOptions::default()
            };
            assert_eq!(resolve(options, &host()).unwrap().records_group, group);
        }
    }

    #[test]
    fn the_help_shows_the_defaults() {
        let help = AgentOptions::augment_args(Command::new("x").term_width(1_000))
            .render_long_help()
            .to_string();
        for (option, default) in [
            ("set-capacity", SET_CAPACITY.default.to_string()),
            ("max-names", MAX_NAMES.default.to_string()),
            ("max-addresses-per-name", MAX_ADDRESSES.default.to_string()),
            ("commit-deadline", COMMIT_DEADLINE.default.to_string()),
            ("min-ttl", MIN_TTL.default.to_string()),
            ("max-ttl", "24h".into()),
            ("grace", GRACE.default.to_string()),
            ("tproxy-mark", format!("{DEFAULT_TPROXY_MARK:#x}")),
            ("tproxy-table", TPROXY_TABLE.default.to_string()),
            ("tproxy-port", TPROXY_PORT.default.to_string()),
            ("table", DEFAULT_TABLE.into()),
            ("records-group", records::DEFAULT_GROUP.to_string()),
            ("http", DEFAULT_HTTP.into()),
            ("state-dir", DEFAULT_STATE_DIR.into()),
            ("run-dir", DEFAULT_RUN_DIR.into()),
            ("cluster-domain", DEFAULT_CLUSTER_DOMAIN.into()),
            (
                "cluster-dns",
                format!("{}/{}", DEFAULT_CLUSTER_DNS.0, DEFAULT_CLUSTER_DNS.1),
            ),
        ] {
            let (_, text) = help.split_once(&format!("--{option} ")).unwrap();
            let entry = text.split("\n      --").next().unwrap();
            assert!(entry.contains(&format!("[default: {default}]")), "{option}: {entry}");
        }
    }

    #[test]
    fn tproxy_takes_its_parameters() {
        let settings = resolve(
            AgentOptions {
                intercept: Some(InterceptionMode::Tproxy),
                tproxy_mark: Some(PacketMark(0x100)),
                ..AgentOptions::default()
            },
            &host(),
        )
        .unwrap();
        assert_eq!(
            settings.interception,
            Interception::Tproxy {
                mark: NonZeroU32::new(0x100).unwrap(),
                routing_table: 5353,
                port: 15353
            }
        );
    }

    #[test]
    fn without_a_resolver_it_says_what_to_do() {
        for resolv_conf in [Ok("search example\n".into()), Err(io::ErrorKind::NotFound.into())] {
            let host = HostFacts { resolv_conf, ..host() };
            let message = resolve(AgentOptions::default(), &host).unwrap_err().to_string();
            assert!(message.contains("--upstream IP"), "{message}");
        }
    }

    #[test]
    fn asking_oneself_is_refused() {
        let listen = vec!["0.0.0.0".parse().unwrap()];
        let message = refused(AgentOptions {
            upstream: vec!["127.0.0.1".parse().unwrap()],
            listen: listen.clone(),
            ..AgentOptions::default()
        });
        assert!(message.contains("ask itself"), "{message}");
        // The resolv.conf that points at the agent itself leaves no resolver.
        let host = HostFacts {
            resolv_conf: Ok("nameserver 127.0.0.1\n".into()),
            ..host()
        };
        let options = AgentOptions {
            listen,
            ..AgentOptions::default()
        };
        assert!(matches!(resolve(options, &host), Err(RejectedOption::NoUpstream(_))));
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_bounds_and_reason() {
        let message = refused(AgentOptions {
            commit_deadline: Some(Duration::from_secs(60)),
            ..AgentOptions::default()
        });
        assert!(
            message.starts_with("--commit-deadline (or `commit-deadline` in the config file) cannot be 1m: it must lie between 10ms and 5s ("),
            "{message}"
        );
        for options in [
            AgentOptions {
                set_capacity: Some(0),
                ..AgentOptions::default()
            },
            AgentOptions {
                max_names: Some(0),
                ..AgentOptions::default()
            },
            AgentOptions {
                max_addresses_per_name: Some(usize::MAX),
                ..AgentOptions::default()
            },
            AgentOptions {
                max_ttl: Some(Duration::ZERO),
                ..AgentOptions::default()
            },
            AgentOptions {
                grace: Some(Duration::from_secs(1_000_000)),
                ..AgentOptions::default()
            },
            AgentOptions {
                min_ttl: Some(Duration::from_secs(60)),
                max_ttl: Some(Duration::from_secs(30)),
                ..AgentOptions::default()
            },
            AgentOptions {
                dns_cache_stale: Some(Duration::from_secs(864_000)),
                ..AgentOptions::default()
            },
            AgentOptions {
                table: Some("a b".into()),
                ..AgentOptions::default()
            },
            AgentOptions {
                table: Some(String::new()),
                ..AgentOptions::default()
            },
            AgentOptions {
                tproxy_mark: Some(PacketMark(0)),
                ..AgentOptions::default()
            },
            AgentOptions {
                tproxy_table: Some(254),
                ..AgentOptions::default()
            },
            AgentOptions {
                tproxy_port: Some(0),
                ..AgentOptions::default()
            },
            AgentOptions {
                cluster_domain: Some(".".into()),
                ..AgentOptions::default()
            },
            AgentOptions {
                cluster_domain: Some("a..b".into()),
                ..AgentOptions::default()
            },
            AgentOptions {
                upstream: vec!["0.0.0.0".parse().unwrap()],
                ..AgentOptions::default()
            },
            AgentOptions {
                upstream: vec!["192.0.2.1:0".parse().unwrap()],
                ..AgentOptions::default()
            },
            AgentOptions {
                listen: vec!["224.0.0.1".parse().unwrap()],
                ..AgentOptions::default()
            },
            AgentOptions {
                run_dir: Some("/".into()),
                ..AgentOptions::default()
            },
            AgentOptions {
                node: Some(" ".into()),
                ..AgentOptions::default()
            },
        ] {
            assert!(resolve(options.clone(), &host()).is_err(), "{options:?}");
        }
    }
}
