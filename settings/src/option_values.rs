//! The values of options that are more than a number or a text.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, ParseIntError};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::value_parser;
use names::Name;

use super::bounds::within;
use super::rejected::UnusableValue;

/// `--intercept`; its parameters are options of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterceptionMode {
    /// Destination NAT rewrites lookups to the agent's listener.
    Dnat,
    /// Transparent sockets take lookups as they are, by mark and policy routing.
    Tproxy,
    /// Lookups are not redirected: workloads are told to ask `--listen`.
    Off,
}

/// `--inspect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectionMode {
    /// Connections are looked into.
    On,
    /// They are refused.
    Off,
}

/// The port of metrics and health, unless another is set.
pub(crate) const DEFAULT_HTTP_PORT: u16 = 9464;

/// Where metrics and health are served (`--http`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl HttpAddress {
    /// The address, if it is served.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::At)
                .map_err(|_| "write an address with a port, as in 127.0.0.1:9464, or `off`".into()),
        }
    }
}

/// Where the page for people is served (`--web`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebAddress {
    /// With metrics where these are served on a loopback address; otherwise at 127.0.0.1, on the
    /// same port.
    Loopback,
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl WebAddress {
    /// The address, if it is served, beside metrics at `http`.
    pub fn address(self, http: HttpAddress) -> Option<SocketAddr> {
        match (self, http) {
            (Self::Off, _) => None,
            (Self::At(address), _) => Some(address),
            (Self::Loopback, HttpAddress::At(http)) if http.ip().is_loopback() => Some(http),
            (Self::Loopback, HttpAddress::At(http)) => Some((Ipv4Addr::LOCALHOST, http.port()).into()),
            (Self::Loopback, HttpAddress::Off) => Some((Ipv4Addr::LOCALHOST, DEFAULT_HTTP_PORT).into()),
        }
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("on"),
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for WebAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::Loopback),
            _ => text
                .parse()
                .map(Self::At)
                .map_err(|_| "write `on`, `off`, or an address with a port, as in 127.0.0.1:9465".into()),
        }
    }
}

/// Where the observer API is served (`--hubble`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubbleAddress {
    /// On a Unix socket with this path.
    Socket(PathBuf),
    /// On this port.
    Port(SocketAddr),
    /// Nowhere.
    Off,
}

impl fmt::Display for HubbleAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            Self::Port(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for HubbleAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
        match path {
            Some(path) if path.starts_with('/') => Ok(Self::Socket(path.into())),
            None if text == "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::Port)
                .map_err(|_| "write unix:/PATH, an address with a port, as in 192.0.2.1:4244, or `off`".into()),
        }
    }
}

/// How refused and audited packets are recorded (`--records-group`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsGroup {
    /// Over this NFLOG group.
    Group(u16),
    /// Not at all.
    Off,
}

impl RecordsGroup {
    /// The group, if packets are recorded.
    pub fn group(self) -> Option<u16> {
        match self {
            Self::Group(group) => Some(group),
            Self::Off => None,
        }
    }
}

impl fmt::Display for RecordsGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => group.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for RecordsGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::Group)
                .map_err(|_| "write an NFLOG group, a number from 0 to 65535, or `off`".into()),
        }
    }
}

/// How the log is written (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line, for programs.
    Json,
}

/// Who may open the local socket besides root (`--socket-group`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketGroup {
    /// The group with this number.
    Number(u32),
    /// The group with this name on this host.
    Name(String),
}

impl fmt::Display for SocketGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for SocketGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            // The number that chown(2) takes for "leave it".
            Ok(u32::MAX) => Err(format!("{text} is no group")),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) if text.is_empty() => Err("write the name or the number of a group, as in adm".into()),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

/// A parser of packet marks, decimal or `0x` and hexadecimal.
pub(super) fn packet_mark() -> impl TypedValueParser<Value = NonZeroU32> {
    let parser = |text: &str| -> Result<u32, ParseIntError> {
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        }
    };
    TypedValueParser::try_map(parser, |bits| {
        NonZeroU32::new(bits).ok_or_else(|| UnusableValue::new(0, "a mark without bits marks nothing"))
    })
}

/// A parser of routing tables that the agent may fill.
pub(super) fn routing_table() -> impl TypedValueParser<Value = u32> {
    within(value_parser!(u32), 1..=u32::MAX, "0 names no table").try_map(|table| {
        // RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL (linux/rtnetlink.h).
        if (253..=255).contains(&table) {
            let reason = "253 to 255 are the kernel's own tables; choose another number";
            return Err(UnusableValue::new(table, reason));
        }
        Ok(table)
    })
}

/// A parser of directories that hold nothing else, made absolute.
pub(super) fn own_directory() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path == Path::new("/") {
            return Err(UnusableValue::new(path.display(), "it needs a directory of its own"));
        }
        std::path::absolute(&path).map_err(|error| UnusableValue::new(path.display(), error))
    })
}

/// Reads the name of a table of nftables.
pub(super) fn table_name(text: &str) -> Result<String, UnusableValue> {
    let mut bytes = text.bytes();
    let fits = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        && text.len() <= 64;
    if !fits {
        let reason = "an nftables name here starts with a letter and has at most 64 letters, digits, '_' and '-'";
        return Err(UnusableValue::new(format_args!("{text:?}"), reason));
    }
    Ok(text.to_owned())
}

/// Reads the key of a taint, which is a qualified name of Kubernetes.
pub(super) fn taint_key(text: &str) -> Result<String, UnusableValue> {
    let (prefix, name) = text.rsplit_once('/').unwrap_or(("", text));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = (1..=63).contains(&name.len())
        && prefix.len() <= 253
        && text.bytes().filter(|byte| *byte != b'/').all(fits)
        && !prefix.contains('/');
    if !is_name {
        let reason = "write the key of a taint, as in namegate.io/agent-not-ready, without its value and effect";
        return Err(UnusableValue::new(format_args!("{text:?}"), reason));
    }
    Ok(text.to_owned())
}

/// Reads the cluster's DNS domain.
pub(super) fn cluster_domain(text: &str) -> Result<Name, UnusableValue> {
    let unusable = |reason: &dyn fmt::Display| UnusableValue::new(format_args!("{text:?}"), reason);
    let name = Name::parse(text).map_err(|error| unusable(&error))?;
    if name == Name::root() {
        return Err(unusable(
            &"every name lies under the root, so every question would be allowed",
        ));
    }
    Ok(name)
}

/// Reads the name of a cluster: what Cilium takes for one.
pub(super) fn cluster_name(text: &str) -> Result<String, UnusableValue> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = text.as_bytes();
    if text.len() <= 32 && text.bytes().all(is_inner) && is_end(bytes.first()) && is_end(bytes.last()) {
        return Ok(text.to_owned());
    }
    let reason =
        "a cluster's name has at most 32 lower-case letters, digits and '-', with a letter or digit at both ends";
    Err(UnusableValue::new(format_args!("{text:?}"), reason))
}

/// `NAME=PATH` of another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPath {
    /// The name of the cluster.
    pub name: String,
    /// Where its objects are, or what says where they are.
    pub path: PathBuf,
}

impl fmt::Display for ClusterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.path.display())
    }
}

/// Reads the name of a cluster and a path.
pub(super) fn cluster_path(text: &str) -> Result<ClusterPath, UnusableValue> {
    match text.split_once('=') {
        Some((name, path)) if !path.is_empty() => Ok(ClusterPath {
            name: cluster_name(name)?,
            path: path.into(),
        }),
        _ => Err(UnusableValue::new(
            format_args!("{text:?}"),
            "write the cluster's name and a path, as in west=/etc/namegate/clusters/west",
        )),
    }
}

/// `NAMESPACE/NAME` of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service in its namespace.
    pub name: String,
}

impl ServiceName {
    pub(super) fn new((namespace, name): (&str, &str)) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // RFC 1123 labels, as Kubernetes requires of both.
        let is_label = |part: &str| {
            (1..=63).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err("write the Service's namespace and name, as in kube-system/kube-dns".into()),
        }
    }
}

/// A parser that takes one of a few words, and shows them in `--help`.
pub fn choice<T, const N: usize>(choices: [(&'static str, T); N]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(choices.map(|(word, _)| word)).try_map(move |given| {
        choices
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, value)| *value)
            // Not reached: the inner parser has let only these words pass.
            .ok_or("not one of the possible values")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_needs_both_parts() {
        assert_eq!("a/b".parse::<ServiceName>().unwrap().to_string(), "a/b");
        for text in ["kube-dns", "/x", "x/", "a/b/c", "A/b"] {
            assert!(text.parse::<ServiceName>().is_err(), "{text}");
        }
    }
}
