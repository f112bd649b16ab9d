//! The values of options that are more than a number or a text.

use std::fmt;
use std::net::SocketAddr;
use std::num::ParseIntError;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

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

/// Where metrics and health are served (`--http`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
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

/// How refused and audited packets are recorded (`--records-group`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsGroup {
    /// Over this NFLOG group.
    Group(u16),
    /// Not at all.
    Off,
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

/// A packet mark, decimal or `0x` and hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMark(pub u32);

impl FromStr for PacketMark {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .map(Self)
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
    fn a_mark_may_be_written_in_hexadecimal() {
        assert_eq!("0x200000".parse(), Ok(PacketMark(0x20_0000)));
        assert_eq!("2097152".parse(), Ok(PacketMark(0x20_0000)));
        assert!("0x1ffffffff".parse::<PacketMark>().is_err());
    }

    #[test]
    fn a_service_needs_both_parts() {
        assert_eq!("a/b".parse::<ServiceName>().unwrap().to_string(), "a/b");
        for text in ["kube-dns", "/x", "x/", "a/b/c", "A/b"] {
            assert!(text.parse::<ServiceName>().is_err(), "{text}");
        }
    }
}
