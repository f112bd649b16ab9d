//! What was refused to a command: as lines at its end, and as a file that it can read meanwhile.

use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use events::account::{FlowEnd, FlowUse, NetworkAccount, RequestLine};
use ipnet::IpNet;
use policy::address::Teachable;
use serde::Serialize;
use tempfile::{NamedTempFile, TempDir};

/// The name of the file in its directory.
const FILE: &str = "report.json";

/// What was refused, for programs. Fields may be added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RefusalReport {
    /// Names whose lookups were refused.
    names: Vec<RefusedName>,
    /// Destinations that were refused.
    addresses: Vec<RefusedAddress>,
    /// Requests and connections that were refused for what they asked.
    requests: Vec<RefusedRequest>,
    /// So many lookups and packets are in none of the lists.
    not_seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RefusedName {
    name: String,
    lookups: u64,
    reason: Option<String>,
    /// The flag of `namegate exec` that would allow it.
    flag: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RefusedAddress {
    address: IpAddr,
    /// As in `443/TCP`.
    port: String,
    /// The name that led there.
    name: Option<String>,
    packets: u64,
    /// The flag of `namegate exec` that would allow it.
    flag: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RefusedRequest {
    /// The method; nothing where a connection was refused by the name of its server.
    method: Option<String>,
    /// As in `https://api.example/users`.
    url: String,
    requests: u64,
    /// The flag of `namegate exec` that would allow it.
    flag: String,
}

impl RefusedRequest {
    fn of(line: &RequestLine, requests: u64) -> Self {
        let scheme = if line.is_tls { "https" } else { "http" };
        let path = line.path.as_deref().unwrap_or_default();
        let url = format!("{scheme}://{}{path}", line.host);
        // Stars of a path that was asked for would be read as patterns.
        let pattern = url.split('?').next().unwrap_or(&url).replace('*', "**");
        let flag = match &line.method {
            Some(method) => format!("--allow '{method} {pattern}'"),
            None => format!("--allow {}", line.host),
        };
        Self {
            method: line.method.clone(),
            url,
            requests,
            flag,
        }
    }
}

impl RefusalReport {
    pub(crate) fn of(account: &NetworkAccount) -> Self {
        let mut report = Self {
            not_seen: account.lost,
            ..Self::default()
        };
        let teachable = Teachable::default().without_private();
        for (name, of_name) in &account.names {
            if of_name.refused > 0 {
                report.names.push(RefusedName {
                    name: name.to_string(),
                    lookups: of_name.refused,
                    reason: of_name.reason.clone(),
                    flag: format!("--allow {name}"),
                });
            }
            for (end, packets) in refused(of_name.flows.iter()) {
                let flag = match teachable.judge(end.address) {
                    Ok(()) => format!("--allow {name}{}", port(end)),
                    Err(_) => format!("--allow-rebind {}", IpNet::from(end.address)),
                };
                report.push(end, Some(name.to_string()), packets, flag);
            }
        }
        for (end, packets) in refused(account.nameless.iter()) {
            let address = match (end.address, port(end).is_empty()) {
                (IpAddr::V6(v6), false) => format!("[{v6}]"),
                (address, _) => address.to_string(),
            };
            report.push(end, None, packets, format!("--allow {address}{}", port(end)));
        }
        let requests = account.refused_requests.iter();
        report.requests = requests.map(|(line, count)| RefusedRequest::of(line, *count)).collect();
        report
    }

    fn push(&mut self, end: &FlowEnd, name: Option<String>, packets: u64, flag: String) {
        self.addresses.push(RefusedAddress {
            address: end.address,
            port: end.traffic.to_string(),
            name,
            packets,
            flag,
        });
    }

    /// A line for each name and destination.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for RefusedName {
            name, lookups, flag, ..
        } in &self.names
        {
            lines.push(format!(
                "refused: the lookup of {name}{}; to allow it: {flag}",
                times(*lookups)
            ));
        }
        for refused in &self.addresses {
            let RefusedAddress {
                address,
                port,
                name,
                packets,
                flag,
            } = refused;
            let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            lines.push(format!(
                "refused: {address}{name} {port}{}; to allow it: {flag}",
                times(*packets)
            ));
        }
        for refused in &self.requests {
            let method = refused
                .method
                .as_ref()
                .map(|method| format!("{method} "))
                .unwrap_or_default();
            lines.push(format!(
                "refused: {method}{}{}; to allow it: {}",
                refused.url,
                times(refused.requests),
                refused.flag
            ));
        }
        if self.not_seen > 0 && !lines.is_empty() {
            lines.push(format!("{} more lookups and packets were not recorded", self.not_seen));
        }
        lines
    }
}

fn refused<'a>(flows: impl Iterator<Item = (&'a FlowEnd, &'a FlowUse)>) -> impl Iterator<Item = (&'a FlowEnd, u64)> {
    flows
        .filter(|(_, flow)| flow.refused > 0)
        .map(|(end, flow)| (end, flow.refused))
}

/// `:443`, where the protocol has ports that `--allow` means.
fn port(end: &FlowEnd) -> String {
    match (end.traffic.protocol, end.traffic.port) {
        (6 | 17 | 132, Some(port)) => format!(":{port}"),
        _ => String::new(),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => String::new(),
        _ => format!(", {count} times"),
    }
}

/// The file that the command can read while it runs. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct LiveReport {
    directory: TempDir,
}

impl LiveReport {
    /// Makes the file, with nothing refused yet.
    pub(crate) fn new() -> io::Result<Self> {
        let directory = TempDir::with_prefix("namegate-report-")?;
        // The command may change to another user, who must be able to read the file.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let report = Self { directory };
        report.write(&RefusalReport::default())?;
        Ok(report)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(FILE)
    }

    /// A file beside it, which everybody may read.
    pub(crate) fn add(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let file = self.directory.path().join(name);
        replace(&file, text)?;
        Ok(file)
    }

    /// Replaces its content in one step.
    pub(crate) fn write(&self, report: &RefusalReport) -> io::Result<()> {
        write(&self.path(), report)
    }
}

/// Writes a report into a file, in one step.
pub(crate) fn write(file: &Path, report: &RefusalReport) -> io::Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    replace(file, &text)
}

/// Replaces a file in one step. Everybody may read it.
pub(crate) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let temporary = NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    fs::write(temporary.path(), text)?;
    temporary.as_file().set_permissions(Permissions::from_mode(0o644))?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use events::EventVerdict::{Allowed, Refused};
    use events::account::samples::{account, flow, lookup, refused_request};

    use super::*;
    use crate::allowance::Allowance;

    fn report() -> RefusalReport {
        RefusalReport::of(&account(&[
            lookup(Refused, "mail.example", &[]),
            lookup(Refused, "mail.example", &[]),
            lookup(Allowed, "a.example", &["198.51.100.1"]),
            flow(Refused, "198.51.100.1", (6, 8080), Some("a.example")),
            flow(Refused, "192.168.7.7", (6, 80), Some("printer.example")),
            flow(Refused, "198.51.100.2", (17, 123), None),
            flow(Refused, "2001:db8::2", (6, 25), None),
            flow(Refused, "198.51.100.2", (1, 8), None),
            refused_request("POST", "api.example", "/users?page=2"),
        ]))
    }

    #[test]
    fn each_refusal_is_a_line_with_the_flag_that_would_allow_it() {
        assert_eq!(
            report().lines(),
            [
                "refused: the lookup of mail.example, 2 times; to allow it: --allow mail.example",
                "refused: 198.51.100.1 (a.example) 8080/TCP; to allow it: --allow a.example:8080",
                "refused: 192.168.7.7 (printer.example) 80/TCP; to allow it: --allow-rebind 192.168.7.7/32",
                "refused: 198.51.100.2 8/ICMP; to allow it: --allow 198.51.100.2",
                "refused: 198.51.100.2 123/UDP; to allow it: --allow 198.51.100.2:123",
                "refused: 2001:db8::2 25/TCP; to allow it: --allow [2001:db8::2]:25",
                "refused: POST https://api.example/users?page=2; to allow it: --allow 'POST https://api.example/users'",
            ]
        );
        assert_eq!(RefusalReport::default().lines(), [""; 0]);
    }

    #[test]
    fn each_flag_is_one_that_can_be_given() {
        let report = report();
        let names = report.names.iter().map(|it| &it.flag);
        let requests = report.requests.iter().map(|it| &it.flag);
        for flag in names.chain(report.addresses.iter().map(|it| &it.flag)).chain(requests) {
            let (option, value) = flag.split_once(' ').unwrap();
            let value = value.trim_matches('\'');
            match option {
                "--allow" => drop(value.parse::<Allowance>().unwrap()),
                _ => drop(value.parse::<IpNet>().unwrap()),
            }
        }
    }

    #[test]
    fn the_file_is_there_from_the_start_and_holds_what_was_refused() {
        let live = LiveReport::new().unwrap();
        let read = || -> serde_json::Value { serde_json::from_str(&fs::read_to_string(live.path()).unwrap()).unwrap() };
        assert_eq!(read()["names"], serde_json::json!([]));
        live.write(&report()).unwrap();
        assert_eq!(read()["names"][0]["flag"], "--allow mail.example");
        assert_eq!(fs::metadata(live.path()).unwrap().permissions().mode() & 0o777, 0o644);
        let path = live.path();
        drop(live);
        assert!(!path.exists());
    }
}
