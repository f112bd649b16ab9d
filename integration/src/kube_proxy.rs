//! Rules as kube-proxy writes them, in its modes iptables and nftables: chains, marks and maps as
//! in a real node's ruleset.
// What cannot be written ends the test; formatting into a String never fails.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use netns::Namespace;

/// The mode of kube-proxy (`--proxy-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeProxyMode {
    /// Through iptables-nft, as every distribution of today has it.
    Iptables,
    /// kube-proxy's own nftables mode.
    Nftables,
}

/// One port of a Service with one backend.
#[derive(Debug, Clone, Copy)]
pub struct ServiceTranslation {
    /// Namespace, Service and port: `shop/web/http`.
    pub name: &'static str,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// What clients address.
    pub service: SocketAddr,
    /// Where they get to.
    pub backend: SocketAddr,
}

/// Puts the rules for these Services into the kernel of `node`.
///
/// # Panics
/// When the kernel or the program that writes the rules refuses them.
pub fn install(node: &Namespace, mode: KubeProxyMode, translations: &[ServiceTranslation]) {
    for is_v4 in [true, false] {
        let translations: Vec<ServiceTranslation> = translations
            .iter()
            .filter(|translation| translation.service.is_ipv4() == is_v4)
            .copied()
            .collect();
        let family = Family::new(is_v4);
        match mode {
            KubeProxyMode::Iptables => feed(node, family.restore, &["--noflush"], &iptables(&family, &translations)),
            KubeProxyMode::Nftables => feed(node, "nft", &["-f", "-"], &nftables(&family, &translations)),
        }
    }
}

struct Family {
    is_v4: bool,
    restore: &'static str,
    nft: &'static str,
    pods: &'static str,
}

impl Family {
    fn new(is_v4: bool) -> Self {
        let (restore, nft, pods) = match is_v4 {
            true => ("iptables-nft-restore", "ip", "10.244.0.0/16"),
            false => ("ip6tables-nft-restore", "ip6", "fd00:10:244::/48"),
        };
        Self {
            is_v4,
            restore,
            nft,
            pods,
        }
    }

    fn host(&self, address: IpAddr) -> String {
        format!("{address}/{}", if self.is_v4 { 32 } else { 128 })
    }
}

fn iptables(family: &Family, translations: &[ServiceTranslation]) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for ServiceTranslation {
        name,
        protocol,
        service,
        backend,
    } in translations
    {
        // kube-proxy hashes the name: iptables takes 28 characters at most.
        let (_, short) = name.rsplit_once('/').unwrap();
        let id = format!("{}{}", short.to_uppercase(), protocol.to_uppercase());
        let (svc, sep) = (format!("KUBE-SVC-{id}"), format!("KUBE-SEP-{id}"));
        writeln!(chains, ":{svc} - [0:0]\n:{sep} - [0:0]").unwrap();
        let portal = format!(
            "-d {} -p {protocol} -m comment --comment \"{name} cluster IP\" -m {protocol} --dport {}",
            family.host(service.ip()),
            service.port()
        );
        writeln!(rules, "-A KUBE-SERVICES {portal} -j {svc}").unwrap();
        writeln!(rules, "-A {svc} ! -s {} {portal} -j KUBE-MARK-MASQ", family.pods).unwrap();
        writeln!(rules, "-A {svc} -m comment --comment \"{name} -> {backend}\" -j {sep}").unwrap();
        writeln!(rules, "-A {sep} -s {} -j KUBE-MARK-MASQ", family.host(backend.ip())).unwrap();
        writeln!(
            rules,
            "-A {sep} -p {protocol} -m {protocol} -j DNAT --to-destination {backend}"
        )
        .unwrap();
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n{rules}COMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    )
}

fn nftables(family: &Family, translations: &[ServiceTranslation]) -> String {
    let ip = family.nft;
    let mut chains = String::new();
    let mut portals = Vec::new();
    let mut cluster_ips: Vec<String> = Vec::new();
    for ServiceTranslation {
        name,
        protocol,
        service,
        backend,
    } in translations
    {
        let id = format!("{}-{name}/{protocol}", name.len());
        let (address, port) = (service.ip(), service.port());
        writeln!(
            chains,
            "chain endpoint-{id} {{\n{ip} saddr {} jump mark-for-masquerade\nmeta l4proto {protocol} dnat to {backend}\n}}\n\
             chain service-{id} {{\n{ip} daddr {address} {protocol} dport {port} {ip} saddr != {} jump mark-for-masquerade\n\
             numgen random mod 1 vmap {{ 0 : goto endpoint-{id} }}\n}}",
            backend.ip(),
            family.pods
        )
        .unwrap();
        portals.push(format!("{address} . {protocol} . {port} : goto service-{id}"));
        if !cluster_ips.contains(&address.to_string()) {
            cluster_ips.push(address.to_string());
        }
    }
    let elements = |list: &[String]| match list.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }}", list.join(", ")),
    };
    format!(
        "table {ip} kube-proxy {{\n\
         set cluster-ips {{\ntype {ip_type}\n{cluster_ips}\n}}\n\
         chain mark-for-masquerade {{\nmeta mark set meta mark or 0x4000\n}}\n\
         chain masquerading {{\nmeta mark and 0x4000 == 0 return\nmeta mark set meta mark xor 0x4000\nmasquerade fully-random\n}}\n\
         {chains}\n\
         map service-ips {{\ntype {ip_type} . inet_proto . inet_service : verdict\n{portals}\n}}\n\
         chain services {{\n{ip} daddr . meta l4proto . th dport vmap @service-ips\n}}\n\
         chain cluster-ips-check {{\n{ip} daddr @cluster-ips reject\n}}\n\
         chain filter-forward {{\ntype filter hook forward priority -110\nct state new jump cluster-ips-check\n}}\n\
         chain filter-output {{\ntype filter hook output priority -90\nct state new jump cluster-ips-check\n}}\n\
         chain nat-prerouting {{\ntype nat hook prerouting priority dstnat\njump services\n}}\n\
         chain nat-output {{\ntype nat hook output priority -100\njump services\n}}\n\
         chain nat-postrouting {{\ntype nat hook postrouting priority srcnat\njump masquerading\n}}\n\
         }}\n",
        ip_type = if family.is_v4 { "ipv4_addr" } else { "ipv6_addr" },
        cluster_ips = elements(&cluster_ips),
        portals = elements(&portals),
    )
}

fn feed(node: &Namespace, program: &str, arguments: &[&str], input: &str) {
    let mut command = node.command(program);
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}\n{input}");
}
