//! What a value of `--allow` or `--deny` says: a name, a pattern or a network, with a port or
//! without; or requests, by method and URL.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use names::Pattern;
use policy::{InspectedPorts, PeerSelector, PortRange, PortSet, Protocol, Zone};

use crate::allowed_requests::AllowedRequests;

/// One value of `--allow` or `--deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowance {
    peers: AllowedPeers,
    /// Over TCP, UDP and SCTP; `None`: every port and protocol.
    port: Option<u16>,
    /// What may be asked for there; `None`: nobody looks.
    requests: Option<AllowedRequests>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AllowedPeers {
    Names(Pattern),
    Network(IpNet),
}

impl FromStr for Allowance {
    type Err = String;

    /// Reads `NAME`, `PATTERN`, `IP` or `CIDR`, each with `:PORT` or without. An IPv6 address with
    /// a port stands in brackets. Or `METHOD,… URL`, where the methods may be left out.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            let (requests, authority) = AllowedRequests::parse(text)?;
            let destination: Self = authority.parse()?;
            if matches!(destination.peers, AllowedPeers::Network(_)) {
                return Err("requests are allowed by the name of their server, and not by its address".to_owned());
            }
            return Ok(Self {
                port: destination.port.or(Some(requests.usual_port())),
                requests: Some(requests),
                ..destination
            });
        }
        if let Some(network) = network(text) {
            return Ok(Self {
                peers: AllowedPeers::Network(network),
                port: None,
                requests: None,
            });
        }
        let (peers, port) = match text.rsplit_once(':') {
            Some((peers, port)) => {
                let number = port.parse().ok().filter(|number| *number > 0);
                let number = number.ok_or_else(|| format!("{port} is no port; it is a number from 1 to 65535"))?;
                (peers, Some(number))
            }
            None => (text, None),
        };
        let bare = peers.strip_prefix('[').and_then(|peers| peers.strip_suffix(']'));
        if let Some(network) = network(bare.unwrap_or(peers)) {
            return Ok(Self {
                peers: AllowedPeers::Network(network),
                port,
                requests: None,
            });
        }
        let pattern = match peers.contains('*') {
            true => Pattern::pattern(peers),
            false => Pattern::name(peers),
        };
        let pattern = pattern.map_err(|error| error.to_string())?;
        Ok(Self {
            peers: AllowedPeers::Names(pattern),
            port,
            requests: None,
        })
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse().ok().map(|address: IpAddr| IpNet::from(address));
    text.parse().ok().map(|network: IpNet| network.trunc()).or_else(address)
}

impl Allowance {
    /// The peers as policies select them.
    pub(crate) fn peers(&self) -> PeerSelector {
        match &self.peers {
            AllowedPeers::Names(pattern) => PeerSelector::Names(vec![pattern.clone()]),
            AllowedPeers::Network(network) => PeerSelector::Prefixes(vec![(Zone::Anywhere, *network)]),
        }
    }

    /// What may be asked for; `None` where nobody looks.
    pub(crate) fn requests(&self) -> Option<&AllowedRequests> {
        self.requests.as_ref()
    }

    /// The ports where nobody looks, as policies select them.
    pub(crate) fn ports(&self) -> PortSet {
        match self.port {
            _ if self.requests.is_some() => PortSet::Ranges(Vec::new()),
            None => PortSet::All,
            Some(port) => {
                let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
                PortSet::from_ranges(protocols.map(|protocol| PortRange::single(protocol, port)))
            }
        }
    }
}

impl Allowance {
    /// The ports whose connections are looked into, as policies select them.
    pub(crate) fn inspected(&self) -> Vec<InspectedPorts> {
        let (Some(requests), Some(port)) = (&self.requests, self.port) else {
            return Vec::new();
        };
        vec![InspectedPorts {
            path: self.to_string(),
            ports: PortSet::from_ranges([PortRange::single(Protocol::Tcp, port)]),
            named: Vec::new(),
            rules: requests.rules(),
        }]
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(requests) = &self.requests {
            return f.write_str(requests.as_str());
        }
        match (&self.peers, self.port) {
            (AllowedPeers::Names(pattern), None) => pattern.fmt(f),
            (AllowedPeers::Names(pattern), Some(port)) => write!(f, "{pattern}:{port}"),
            (AllowedPeers::Network(network), None) => network.fmt(f),
            (AllowedPeers::Network(IpNet::V6(network)), Some(port)) => write!(f, "[{network}]:{port}"),
            (AllowedPeers::Network(network), Some(port)) => write!(f, "{network}:{port}"),
        }
    }
}

/// Reads a file of `--allow-file`: a value a line; `#` begins a comment.
///
/// # Errors
/// Names the first line that cannot be read.
pub(crate) fn read_list(text: &str) -> Result<Vec<Allowance>, String> {
    let lines = text.lines().enumerate().map(|(number, line)| {
        let value = line.split('#').next().unwrap_or_default().trim();
        (number + 1, value)
    });
    lines
        .filter(|(_, value)| !value.is_empty())
        .map(|(number, value)| value.parse().map_err(|error| format!("{number}: {value}: {error}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_networks_are_read_with_ports_and_without() {
        for (text, shown) in [
            ("github.com", "github.com"),
            ("GitHub.com:443", "github.com:443"),
            ("*.example:80", "*.example:80"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.7/24:25", "192.0.2.0/24:25"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("[2001:db8::1]:443", "[2001:db8::1/128]:443"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ] {
            assert_eq!(text.parse::<Allowance>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in [
            "",
            "a..b",
            "github.com:",
            "github.com:0",
            "github.com:70000",
            "github.com:https",
            "a b",
        ] {
            assert!(wrong.parse::<Allowance>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_is_that_of_every_protocol_with_ports_and_without_one_all_is_meant() {
        let ports = |text: &str| text.parse::<Allowance>().unwrap().ports();
        assert_eq!(ports("github.com"), PortSet::All);
        let PortSet::Ranges(ranges) = ports("github.com:443") else {
            panic!("no ranges");
        };
        assert!(ranges.iter().all(|range| (range.first, range.last) == (443, 443)));
        assert_eq!(ranges.len(), 3);
    }

    #[test]
    fn a_file_has_a_value_a_line() {
        let list = read_list("# what pip needs\npypi.org:443\n\n  files.pythonhosted.org  # and its files\n").unwrap();
        let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["pypi.org:443", "files.pythonhosted.org"]);
        assert_eq!(read_list("a.example\nb..c\n").unwrap_err().split(':').next(), Some("2"));
    }
}
