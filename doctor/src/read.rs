//! Reads what the checks need from `/proc`, `/sys` and `nft`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use settings::InterceptionMode;

use crate::{KernelFeature, NodeFacts, RunningAgent};

const SYSCTLS: [&str; 6] = [
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
];

const DNS_PORT: u16 = 53;

/// Reads the node that this process runs on. Changes nothing: nft checks the scripts for its
/// features and does not apply them.
pub fn read(interception: InterceptionMode, table: &str, running: Option<RunningAgent>) -> NodeFacts {
    NodeFacts {
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        capabilities: capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
        nft: nft(&["--version"], "").map(|text| text.trim().to_owned()),
        features: KernelFeature::ALL
            .map(|feature| (feature, try_feature(feature)))
            .into_iter()
            .collect(),
        sysctls: sysctls(),
        ruleset: nft(&["-j", "list", "ruleset"], "")
            .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())),
        legacy_tables: legacy_tables(),
        bridges: bridges(),
        dns_sockets: dns_sockets(),
        running,
        interception,
        table: table.to_owned(),
    }
}

/// The effective capabilities, from the line `CapEff` of proc_pid_status(5).
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

fn try_feature(feature: KernelFeature) -> Result<(), String> {
    // The table is never made; the name is nobody's, so that nothing of others is checked with it.
    let script = format!("table inet namegate-doctor {{\n{}\n}}\n", feature.script());
    nft(&["--check", "-f", "-"], &script).map(drop)
}

fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let run = || -> io::Result<_> {
        let mut child = Command::new("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Writing does not block: the scripts are shorter than a pipe. If nft has ended
            // already, its exit status tells why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            // The first line is the message; the others quote the script.
            Err(complaint.lines().next().unwrap_or("it said nothing").to_owned())
        }
    }
}

fn sysctls() -> BTreeMap<String, String> {
    let marks = entries("/proc/sys/net/ipv4/conf")
        .into_iter()
        .map(|link| format!("ipv4/conf/{link}/src_valid_mark"));
    SYSCTLS
        .into_iter()
        .map(str::to_owned)
        .chain(marks)
        .filter_map(|path| Some((path.clone(), line(&format!("/proc/sys/net/{path}"))?)))
        .collect()
}

fn legacy_tables() -> Vec<String> {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Bridges and how many ports each has, from `/sys/class/net`. That shows the network namespace in
/// which it was mounted: in a Pod on the host's network, the host's.
fn bridges() -> BTreeMap<String, usize> {
    entries("/sys/class/net")
        .into_iter()
        .filter(|link| Path::new("/sys/class/net").join(link).join("bridge").is_dir())
        .map(|link| {
            let ports = entries(&format!("/sys/class/net/{link}/brif")).len();
            (link, ports)
        })
        .collect()
}

fn dns_sockets() -> Vec<SocketAddr> {
    let mut sockets: Vec<SocketAddr> = ["/proc/net/udp", "/proc/net/udp6"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().filter_map(local_address).collect::<Vec<_>>())
        .filter(|socket| socket.port() == DNS_PORT)
        .collect();
    sockets.sort_unstable();
    sockets.dedup();
    sockets
}

/// The local address in a line of `/proc/net/udp`, which is its second column: address and port in
/// hexadecimal, the address as 32-bit words in the host's byte order.
fn local_address(line: &str) -> Option<SocketAddr> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(address.get(index * 8..index * 8 + 8)?)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn entries(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_a_mask() {
        assert_eq!(capabilities("Name:\tx\nCapEff:\t0000000000001000\n"), 1 << 12);
        assert_eq!(capabilities(""), 0);
    }

    #[test]
    fn sockets_of_both_families_are_read() {
        let v4 = "  1: 0A14FEA9:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0";
        assert_eq!(local_address(v4), Some("169.254.20.10:53".parse().unwrap()));
        let v6 = "  1: 000000FD530000000000000053000000:0035 00000000000000000000000000000000:0000 07";
        assert_eq!(local_address(v6), Some("[fd00:0:0:53::53]:53".parse().unwrap()));
        for hostile in ["", "sl local_address", "1: x:y", "1: 0A:0035", "1: €€€€€€€€€€€:0035"] {
            assert_eq!(local_address(hostile), None, "{hostile}");
        }
    }
}
