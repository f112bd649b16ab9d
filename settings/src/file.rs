//! The config file: a YAML mapping whose keys are the flags of `namegate agent`, without the
//! dashes.
//!
//! ```yaml
//! objects: /etc/namegate/objects
//! upstream: [192.0.2.53, 192.0.2.54]
//! fail-mode: closed
//! grace: 1m
//! ```
//!
//! One key is no flag: `clusters` lists other clusters as `{name, kubeconfig}` or `{name,
//! objects}`, and stands for `--cluster-kubeconfig` and `--cluster`.
//!
//! Each entry is given to the parser of the command line, so that there is one reader of names and
//! values, and a new flag is a key of the file at once.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use thiserror::Error;

use super::layer::OptionLayer;
use super::rejected::RejectedOption;

/// Why a config file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot read the config file {}: {error}; check the path given to --config", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not YAML, or not a mapping of options.
    #[error("the config file {} is not a YAML mapping of options to values: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What the YAML reader says.
        reason: String,
    },
    /// A key is no option.
    #[error("{}:{line}: there is no option `{key}`; {}", path.display(), match suggestion {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`namegate agent --help` lists them, and the file writes them without the dashes".into(),
    })]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// One-based line of its value.
        line: u64,
        /// The key.
        key: String,
        /// An option of a similar name.
        suggestion: Option<String>,
    },
    /// A value is not one of its option.
    #[error("{}:{line}: `{key}`: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// One-based line of the value.
        line: u64,
        /// The option.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a config file.
pub fn read(path: &Path) -> Result<OptionLayer, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Read {
        path: path.to_owned(),
        error,
    })?;
    parse(path, &text)
}

/// Reads the text of a config file; `path` is for messages.
pub fn parse(path: &Path, text: &str) -> Result<OptionLayer, FileError> {
    // `off` is a word of ours, and a boolean of YAML 1.1.
    let options = serde_saphyr::options! { strict_booleans: true };
    // A file of comments only is a null document, not a mapping.
    let entries: Option<ConfigEntries> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| FileError::Malformed {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    let mut said = Vec::new();
    for (key, value) in entries.unwrap_or_default().0 {
        let line = value.referenced.line();
        let refused = |reason: String| FileError::Value {
            path: path.to_owned(),
            line,
            key: key.clone(),
            reason,
        };
        let meant = match (key.as_str(), value.value) {
            (CLUSTERS, ConfigValue::Mappings(clusters)) => clusters_as_options(clusters).map_err(refused)?,
            (CLUSTERS, ConfigValue::One(_) | ConfigValue::Many(_)) => {
                return Err(refused(
                    "write a list of clusters, as in [{name: west, kubeconfig: FILE}]".into(),
                ));
            }
            (_, ConfigValue::Mappings(_)) => return Err(refused("a list may hold only plain values".into())),
            (_, value) => {
                let none = || refused("it has no value; write one, or remove the key".into());
                vec![(key.clone(), value.into_values().ok_or_else(none)?)]
            }
        };
        for entry in meant {
            // Each entry by itself first, so that an error can name its line.
            check(OptionLayer::from_iter([entry.clone()])).map_err(|error| explain(path, line, &entry.0, &error))?;
            said.push(entry);
        }
    }
    if let Some((twice, _)) = said
        .iter()
        .enumerate()
        .find_map(|(n, it)| said[..n].iter().find(|other| other.0 == it.0))
    {
        return Err(FileError::Malformed {
            path: path.to_owned(),
            reason: format!("`{CLUSTERS}` says what `{twice}` says too; write one of them"),
        });
    }
    let layer: OptionLayer = said.into_iter().collect();
    check(layer.clone()).map_err(|error| FileError::Malformed {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(layer)
}

/// The key of other clusters.
const CLUSTERS: &str = "clusters";

/// The flags that entries of [`CLUSTERS`] stand for.
fn clusters_as_options(clusters: Vec<BTreeMap<String, String>>) -> Result<Vec<(String, Vec<OsString>)>, String> {
    let mut options: BTreeMap<String, Vec<OsString>> = BTreeMap::new();
    for mut cluster in clusters {
        let name = cluster.remove("name").ok_or("a cluster has no `name`")?;
        let leads = ["kubeconfig", "objects"].map(|field| cluster.remove(field));
        if let Some(unknown) = cluster.keys().next() {
            return Err(format!("`{unknown}` is none of `name`, `kubeconfig` and `objects`"));
        }
        let (option, path) = match leads {
            [Some(file), None] => ("cluster-kubeconfig", file),
            [None, Some(directory)] => ("cluster", directory),
            _ => return Err(format!("the cluster {name:?} needs one of `kubeconfig` and `objects`")),
        };
        let values = options.entry(option.to_owned()).or_default();
        values.push(format!("{name}={path}").into());
    }
    Ok(options.into_iter().collect())
}

/// Finds what cannot be read. Values out of bounds are left to whom the options are for: the
/// command line may say something else.
fn check(layer: OptionLayer) -> Result<(), clap::Error> {
    match layer.parse() {
        Err(error) if RejectedOption::of(&error).is_none() => Err(error),
        _ => Ok(()),
    }
}

fn explain(path: &Path, line: u64, key: &str, error: &clap::Error) -> FileError {
    let path = path.to_owned();
    let key = key.to_owned();
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(one)) => Some(one.clone()),
        Some(ContextValue::Strings(many)) => Some(many.join(", ")),
        _ => None,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let suggestion = context(ContextKind::SuggestedArg).map(|arg| arg.trim_start_matches('-').to_owned());
        return FileError::UnknownKey {
            path,
            line,
            key,
            suggestion,
        };
    }
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let reason = match (error.kind(), error.source(), context(ContextKind::ValidValue)) {
        (ErrorKind::ArgumentConflict, ..) => "it takes one value, not a list".into(),
        (_, Some(source), _) => format!("{value:?} cannot be used: {source}"),
        (_, None, Some(valid)) => format!("{value:?} is not one of {valid}"),
        (kind, None, None) => kind.to_string(),
    };
    FileError::Value {
        path,
        line,
        key,
        reason,
    }
}

/// The entries in the file's order.
#[derive(Default)]
struct ConfigEntries(Vec<(String, Spanned<ConfigValue>)>);

/// A value as text, whatever YAML takes it for: the command line's parser decides what it means.
enum ConfigValue {
    Nothing,
    One(String),
    Many(Vec<String>),
    Mappings(Vec<BTreeMap<String, String>>),
}

impl ConfigValue {
    /// `None` where there is no value.
    fn into_values(self) -> Option<Vec<OsString>> {
        match self {
            ConfigValue::Nothing | ConfigValue::Mappings(_) => None,
            ConfigValue::One(value) => Some(vec![value.into()]),
            ConfigValue::Many(values) => Some(values.into_iter().map(OsString::from).collect()),
        }
    }
}

impl<'de> Deserialize<'de> for ConfigEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mapping;
        impl<'de> Visitor<'de> for Mapping {
            type Value = ConfigEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of options to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConfigEntries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(ConfigEntries(entries))
            }
        }
        deserializer.deserialize_map(Mapping)
    }
}

/// An item of a list.
enum ConfigItem {
    Plain(String),
    Mapping(BTreeMap<String, String>),
}

impl<'de> Deserialize<'de> for ConfigItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Item;
        impl<'de> Visitor<'de> for Item {
            type Value = ConfigItem;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plain value, or a mapping of such")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConfigItem, A::Error> {
                let mut mapping = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    mapping.insert(key, value);
                }
                Ok(ConfigItem::Mapping(mapping))
            }

            fn visit_str<E>(self, value: &str) -> Result<ConfigItem, E> {
                Ok(ConfigItem::Plain(value.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<ConfigItem, E> {
                Ok(ConfigItem::Plain(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<ConfigItem, E> {
                Ok(ConfigItem::Plain(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<ConfigItem, E> {
                Ok(ConfigItem::Plain(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<ConfigItem, E> {
                Ok(ConfigItem::Plain(value.to_string()))
            }
        }
        deserializer.deserialize_any(Item)
    }
}

impl<'de> Deserialize<'de> for ConfigValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalars;
        impl<'de> Visitor<'de> for Scalars {
            type Value = ConfigValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, or a list of values")
            }

            fn visit_str<E>(self, value: &str) -> Result<ConfigValue, E> {
                Ok(ConfigValue::One(value.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<ConfigValue, E> {
                Ok(ConfigValue::One(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<ConfigValue, E> {
                Ok(ConfigValue::One(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<ConfigValue, E> {
                Ok(ConfigValue::One(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<ConfigValue, E> {
                Ok(ConfigValue::One(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<ConfigValue, E> {
                Ok(ConfigValue::Nothing)
            }

            fn visit_none<E>(self) -> Result<ConfigValue, E> {
                Ok(ConfigValue::Nothing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ConfigValue, A::Error> {
                let (mut values, mut mappings) = (Vec::new(), Vec::new());
                while let Some(value) = seq.next_element::<ConfigItem>()? {
                    match value {
                        ConfigItem::Plain(value) => values.push(value),
                        ConfigItem::Mapping(mapping) => mappings.push(mapping),
                    }
                }
                match (values.is_empty(), mappings.is_empty()) {
                    (true, true) => Ok(ConfigValue::Nothing),
                    (false, true) => Ok(ConfigValue::Many(values)),
                    (true, false) => Ok(ConfigValue::Mappings(mappings)),
                    (false, false) => Err(serde::de::Error::custom("a list may hold only values of one kind")),
                }
            }
        }
        deserializer.deserialize_any(Scalars)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use enforcer::FailMode;

    use super::super::AgentOptions;
    use super::super::option_values::{ClusterPath, HttpAddress, InterceptionMode, RecordsGroup};
    use super::*;

    fn options(text: &str) -> Result<AgentOptions, String> {
        let layer = parse(Path::new("agent.yaml"), text).map_err(|error| error.to_string())?;
        layer.options().map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_writes_what_the_flags_write() {
        let options = options(
            "# comment\n\
             objects: /etc/namegate/objects\n\
             upstream:\n- 192.0.2.1\n- '[2001:db8::1]:5353'\n\
             listen: 127.0.0.1:5300\n\
             fail-mode: closed\n\
             grace: 1m\n\
             min-ttl: 0s\n\
             max-names: 500\n\
             tproxy-mark: 0x200000\n\
             http: off\n\
             records-group: 7\n\
             intercept: off\n",
        )
        .unwrap();
        assert_eq!(
            options.objects.objects.as_deref(),
            Some(Path::new("/etc/namegate/objects"))
        );
        assert_eq!(options.resolvers.upstream.len(), 2);
        assert_eq!(options.resolvers.listen.len(), 1);
        assert_eq!(options.lookups.fail_mode, FailMode::Closed);
        assert_eq!(options.leases.grace, Duration::from_secs(60));
        assert_eq!(options.leases.min_ttl, Duration::ZERO);
        assert_eq!(options.leases.max_names.get(), 500);
        assert_eq!(options.interception.tproxy_mark.get(), 0x20_0000);
        assert_eq!(options.process.http, HttpAddress::Off);
        assert_eq!(options.kernel.records_group, RecordsGroup::Group(7));
        assert_eq!(options.interception.intercept, InterceptionMode::Off);
    }

    #[test]
    fn other_clusters_are_a_list_of_what_they_are_called_and_where_they_are() {
        let written = "clusters:\n- {name: west, kubeconfig: /k/west}\n- {name: north, objects: /o}\n- name: 7\n  kubeconfig: /k/7\n";
        let clusters = options(written).unwrap().cluster;
        let shown = |paths: &[ClusterPath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&clusters.cluster_kubeconfig), ["west=/k/west", "7=/k/7"]);
        assert_eq!(shown(&clusters.cluster), ["north=/o"]);
        for (text, said) in [
            ("clusters: [west]", "`clusters`: write a list of clusters"),
            ("clusters: west", "`clusters`: write a list of clusters"),
            ("clusters: [{kubeconfig: k}]", "no `name`"),
            ("clusters: [{name: west}]", "one of `kubeconfig` and `objects`"),
            (
                "clusters: [{name: west, kubeconfig: k, objects: o}]",
                "one of `kubeconfig` and `objects`",
            ),
            ("clusters: [{name: west, kubeconfg: k}]", "`kubeconfg` is none of"),
            ("clusters: [{name: West, kubeconfig: k}]", "lower-case"),
            ("clusters: [{name: west, kubeconfig: k}, east]", "one kind"),
            (
                "clusters: [{name: west, objects: k}]\ncluster: [east=o]",
                "`clusters` says what `cluster` says too",
            ),
            ("upstream: [{name: a}]", "only plain values"),
        ] {
            let error = options(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(options("").unwrap(), AgentOptions::default());
        assert_eq!(options("# nothing yet\n").unwrap(), AgentOptions::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_a_near_one() {
        assert_eq!(
            options("grace: 1s\nupstreem: 192.0.2.1\n").unwrap_err(),
            "agent.yaml:2: there is no option `upstreem`; did you mean `upstream`?"
        );
        assert!(options("zzz: 1").unwrap_err().contains("namegate agent --help"));
    }

    #[test]
    fn a_bad_value_names_line_key_and_reason() {
        let message = options("\nfail-mode: ajar\n").unwrap_err();
        assert_eq!(
            message,
            "agent.yaml:2: `fail-mode`: \"ajar\" is not one of open, closed"
        );
        let message = options("upstream: dns.example").unwrap_err();
        assert!(message.starts_with("agent.yaml:1: `upstream`: \"dns.example\" cannot be used: write an IP"));
        let message = options("grace: 30").unwrap_err();
        assert!(
            message.starts_with("agent.yaml:1: `grace`: \"30\" cannot be used: "),
            "{message}"
        );
    }

    #[test]
    fn a_list_for_a_single_value_and_a_key_without_value_are_refused() {
        assert!(options("table: [a, b]").unwrap_err().contains("one value, not a list"));
        assert!(options("table:\n").unwrap_err().contains("it has no value"));
    }

    #[test]
    fn what_is_not_a_mapping_of_options_is_refused() {
        for text in [
            "- upstream",
            "just text",
            "upstream: {a: b}",
            "a: b: c",
            "grace: 1s\ngrace: 2s",
        ] {
            assert!(options(text).is_err(), "{text}");
        }
    }
}
