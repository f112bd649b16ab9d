//! Options and facts of the host → settings.

mod resolvers;

use std::num::NonZeroUsize;

use dns_proxy::CacheConfig;
use enforcer::Interception;
use fqdn_cache::{LeaseTiming, LedgerLimits};
use policy::QuestionMode;
use state_dir::StateDir;

use super::bounds::HumanDuration;
use super::host::HostFacts;
use super::option_values::{ClusterPath, HubbleAddress, InterceptionMode};
use super::options::{
    ClusterOptions, InterceptionOptions, LeaseOptions, LookupOptions, ObjectOptions, ProcessOptions, ResolverOptions,
};
use super::rejected::{RejectedOption, rejected};
use super::{AgentOptions, ClusterLead, HubblePlace, HubbleTls, OtherClusterAddress, Settings};

use resolvers::{encrypted, listeners, upstreams};

/// Joins options that mean something only together, or with facts of the host. Where objects come
/// from, and whether the agent is supervised, are no settings: the caller has taken them.
pub fn resolve(options: AgentOptions, host: &HostFacts) -> Result<Settings, RejectedOption> {
    let AgentOptions {
        objects: ObjectOptions { objects, node, .. },
        cluster,
        resolvers: ResolverOptions {
            upstream,
            upstream_ca,
            listen,
        },
        interception,
        lookups,
        leases,
        inspection,
        kernel,
        process,
    } = options;

    let listen = listeners(listen)?;
    Ok(Settings {
        node: node_name(node, host)?,
        encrypted: encrypted(&upstream, upstream_ca.as_deref())?,
        upstreams: upstreams(upstream, &listen, host)?,
        listen,
        state_dir: process.state_dir.clone().map(StateDir::new),
        interception: interception_of(&interception),
        // In a cluster, policies say who may ask what; a directory is one machine's, where nothing
        // else asks.
        questions: lookups.dns_questions.unwrap_or(match objects {
            Some(_) => QuestionMode::AllowedOnly,
            None => QuestionMode::Any,
        }),
        lease: lease_timing(&leases)?,
        limits: LedgerLimits {
            names: leases.max_names,
            addresses_per_name: leases.max_addresses_per_name,
        },
        cache: cache(&lookups),

        table: kernel.table.clone(),
        fail_mode: lookups.fail_mode,
        refusal: kernel.deny_response,
        unknown_pods: kernel.unknown_pods,
        local_host: kernel.local_host,
        revoke: kernel.revoke,
        capacity: kernel.set_capacity,
        matching: lookups.dns_match,
        rebind: leases.allow_rebind.clone(),
        private_addresses: leases.private_addresses,
        cluster_cidrs: cluster.cluster_cidr.clone(),
        cluster_domain: cluster.cluster_domain.clone(),
        cluster_name: cluster.cluster_name.clone(),
        other_clusters: other_clusters(&cluster)?,
        cluster_dns: cluster
            .cluster_dns
            .iter()
            .map(|it| (it.namespace.clone(), it.name.clone()))
            .collect(),
        records_group: kernel.records_group.group(),
        hubble: hubble_place(&process)?,

        cluster,
        lookups,
        leases,
        inspection,
        kernel,
        process,
    })
}

/// A port is served over TLS alone: what is shown there is who talks to whom.
fn hubble_place(process: &ProcessOptions) -> Result<Option<HubblePlace>, RejectedOption> {
    let tls = (
        &process.hubble_tls_cert,
        &process.hubble_tls_key,
        &process.hubble_tls_client_ca,
    );
    match (&process.hubble, tls) {
        (HubbleAddress::Off, _) => Ok(None),
        (HubbleAddress::Socket(path), _) => Ok(Some(HubblePlace::Socket(path.clone()))),
        (HubbleAddress::Port(address), (Some(certificate), Some(key), Some(client_authorities))) => {
            Ok(Some(HubblePlace::Port {
                address: *address,
                tls: HubbleTls {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_authorities: client_authorities.clone(),
                },
            }))
        }
        (HubbleAddress::Port(address), _) => Err(rejected(
            "hubble",
            address,
            "a port is served over TLS alone: say --hubble-tls-cert, --hubble-tls-key and --hubble-tls-client-ca, or \
             serve unix:/PATH",
        )),
    }
}

fn node_name(given: Option<String>, host: &HostFacts) -> Result<String, RejectedOption> {
    let name = given.unwrap_or_else(|| host.name.clone());
    if name.trim().is_empty() {
        return Err(RejectedOption::NoNode);
    }
    Ok(name)
}

/// Each cluster once, and not the own one.
fn other_clusters(options: &ClusterOptions) -> Result<Vec<OtherClusterAddress>, RejectedOption> {
    let ClusterOptions {
        cluster,
        cluster_kubeconfig,
        ..
    } = options;
    let directories = cluster.iter().map(|it| ("cluster", it));
    let kubeconfigs = cluster_kubeconfig.iter().map(|it| ("cluster-kubeconfig", it));
    let mut others: Vec<OtherClusterAddress> = Vec::new();
    for (option, given) in directories.chain(kubeconfigs) {
        let ClusterPath { name, path } = given;
        if *name == options.cluster_name {
            let reason = "this is the name of this cluster; say another one with --cluster-name";
            return Err(rejected(option, given, reason));
        }
        if others.iter().any(|other| other.name == *name) {
            return Err(rejected(option, given, "there is a cluster of this name already"));
        }
        others.push(OtherClusterAddress {
            name: name.clone(),
            lead: match option {
                "cluster" => ClusterLead::Directory(path.clone()),
                _ => ClusterLead::Kubeconfig(path.clone()),
            },
        });
    }
    others.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(others)
}

fn interception_of(options: &InterceptionOptions) -> Interception {
    match options.intercept {
        InterceptionMode::Dnat => Interception::Dnat,
        InterceptionMode::Off => Interception::Off,
        InterceptionMode::Tproxy => Interception::Tproxy {
            mark: options.tproxy_mark,
            routing_table: options.tproxy_table,
            port: options.tproxy_port,
        },
    }
}

fn lease_timing(options: &LeaseOptions) -> Result<LeaseTiming, RejectedOption> {
    let (min_ttl, max_ttl) = (HumanDuration(options.min_ttl), HumanDuration(options.max_ttl));
    if min_ttl > max_ttl {
        return Err(rejected(
            "min-ttl",
            min_ttl,
            format_args!("it is longer than --max-ttl, {max_ttl}"),
        ));
    }
    Ok(LeaseTiming {
        min_ttl: options.min_ttl,
        max_ttl: options.max_ttl,
        grace: options.grace,
    })
}

fn cache(options: &LookupOptions) -> Option<CacheConfig> {
    let entries = NonZeroUsize::new(options.dns_cache)?;
    Some(CacheConfig {
        entries,
        stale_for: options.dns_cache_stale,
    })
}

#[cfg(test)]
mod tests;
