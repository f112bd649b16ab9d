//! The flags of `namegate exec`, and the settings of its agent that follow from them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use dns_proxy::Rcode;
use enforcer::FailMode;
use events::learned_policy::LearnOptions;
use ipnet::IpNet;
use names::Name;
use policy::{DenyResponse, QuestionMode};
use settings::options::ResolverOptions;
use settings::{
    AgentOptions, DnsAddress, HostFacts, HttpAddress, InspectionMode, InterceptionMode, NameMatching, PrivateAddresses,
    RecordsGroup, RejectedOption, Settings, UpstreamAddress, choice, resolve,
};

use crate::allowance::{Allowance, read_list};
use crate::allowed_requests::AllowedRequests;
use crate::child::DNS_PORT;
use crate::network_plan::NetworkPlan;
use crate::source::Allowances;
use crate::{firewall, source};

/// Runs a command in a fresh network namespace that reaches only the names it is allowed.
///
/// The exit code is the command's, or 128 and the signal that ended it; 127 when it is not found,
/// 126 when it cannot be executed, 2 when the sandbox cannot be made.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name that may be reached, on every port or on one; with stars a pattern, as in matchPattern;
    /// or an address or network; or requests, as in `GET https://api.github.com/repos/**`
    /// (repeatable)
    #[arg(long, value_name = "NAME|PATTERN|CIDR[:PORT]|[METHODS ]URL")]
    allow: Vec<Allowance>,

    /// Read requests in TLS, as `--allow` with https URLs needs: the command is told to trust an
    /// authority that lives as long as it, and its connections to these names are decrypted here
    #[arg(long)]
    inspect: bool,

    /// File with values of --allow, one a line, # for comments (repeatable)
    #[arg(long, value_name = "FILE")]
    allow_file: Vec<PathBuf>,

    /// Name, address or network that may not be reached, whatever else allows it (repeatable)
    #[arg(long, value_name = "NAME|PATTERN|CIDR[:PORT]")]
    deny: Vec<Allowance>,

    /// Let everything through, and write the policy that would have been enough into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow", "allow_file", "deny", "policy"])]
    learn: Option<PathBuf>,

    /// With --learn: so many names below one parent become a pattern [default: never]
    #[arg(long, value_name = "N", requires = "learn")]
    generalize: Option<usize>,

    /// File into which is written, as JSON, what was refused
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// File with policies that apply to the command, read again when it changes; other objects in
    /// it are left out (repeatable)
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,

    /// Label of the command, for the selectors of the policies (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,

    /// Resolver to ask, instead of those in /etc/resolv.conf; encrypted: tls://IP#NAME,
    /// https://IP/PATH#NAME, quic://IP#NAME (repeatable)
    #[arg(long, value_name = "IP[:PORT]|URL")]
    upstream: Vec<UpstreamAddress>,

    /// Certificates of authorities, in PEM, that encrypted upstreams are checked against [default:
    /// the system's]
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<PathBuf>,

    /// Names of an answer that policies are matched against: the one that was asked, or all of the
    /// CNAME chain
    #[arg(long, value_name = "WHICH", default_value = "question", value_parser = choice([("question", NameMatching::Question), ("chain", NameMatching::Chain)]))]
    dns_match: NameMatching,

    /// How lookups of other names are answered
    #[arg(long, value_name = "HOW", default_value = "nxdomain", value_parser = choice([("nxdomain", Rcode::NxDomain), ("refused", Rcode::Refused)]))]
    dns_denied: Rcode,

    /// What may be asked: names that a policy lets be reached, or any (which can carry data out)
    #[arg(long, value_name = "WHICH", default_value = "allowed-only", value_parser = choice([("allowed-only", QuestionMode::AllowedOnly), ("any", QuestionMode::Any)]))]
    dns_questions: QuestionMode,

    /// What other packets get: an answer that they are refused, or none
    #[arg(long, value_name = "HOW", default_value = "reject", value_parser = choice([("reject", DenyResponse::Reject), ("drop", DenyResponse::Drop)]))]
    deny_response: DenyResponse,

    /// Range that names may open although it is private, loopback, link-local or the like
    /// (repeatable)
    #[arg(long, value_name = "CIDR")]
    allow_rebind: Vec<IpNet>,

    /// Whether names may open private addresses (RFC 1918, 100.64.0.0/10, fc00::/7) outside
    /// --allow-rebind
    #[arg(long, value_name = "WHAT", default_value = "deny", value_parser = choice([("allow", PrivateAddresses::Allow), ("deny", PrivateAddresses::Deny)]))]
    private_addresses: PrivateAddresses,

    /// Open file that the command inherits, by its descriptor's number; others are closed but 0, 1
    /// and 2 (repeatable)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    keep_fd: Vec<RawFd>,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Args {
    /// What the flags and files allow and deny.
    ///
    /// # Errors
    /// Says of each file that cannot be read why.
    pub(crate) fn allowances(&self) -> Result<Allowances, Vec<String>> {
        let mut allowances = Allowances {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            audit: self.learn.is_some(),
        };
        let mut wrong = Vec::new();
        for file in &self.allow_file {
            let text = fs::read_to_string(file).map_err(|error| format!(" {error}"));
            match text.and_then(|text| read_list(&text)) {
                Ok(list) => allowances.allow.extend(list),
                Err(error) => wrong.push(format!("--allow-file {}:{error}", file.display())),
            }
        }
        let looks = |value: &&Allowance| value.requests().is_some_and(AllowedRequests::is_tls);
        if let Some(value) = allowances.allow.iter().find(looks)
            && !self.inspect
        {
            wrong.push(format!(
                "--allow '{value}' reads requests in TLS: add --inspect, which has the command trust an authority of this run"
            ));
        }
        if let Some(value) = allowances.deny.iter().find(|value| value.requests().is_some()) {
            wrong.push(format!(
                "--deny '{value}': requests are refused unless they are allowed; deny a name"
            ));
        }
        if wrong.is_empty() { Ok(allowances) } else { Err(wrong) }
    }

    /// Where to write the policy that would have been enough, and how it is made.
    pub(crate) fn learn(&self) -> Option<(&Path, LearnOptions)> {
        let options = LearnOptions {
            generalize: self.generalize,
            assumed_port: None,
        };
        self.learn.as_deref().map(|file| (file, options))
    }

    /// Whether TLS ends here where requests in it are allowed.
    pub(crate) fn inspects(&self) -> bool {
        self.inspect
    }

    pub(crate) fn report_file(&self) -> Option<&Path> {
        self.report.as_deref()
    }

    pub(crate) fn policy_files(&self) -> &[PathBuf] {
        &self.policy
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.label.iter().cloned().collect()
    }

    pub(crate) fn command(&self) -> &[OsString] {
        &self.command
    }

    pub(crate) fn kept_descriptors(&self) -> &[RawFd] {
        &self.keep_fd
    }

    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// The settings of the agent, which runs on the host's side of the sandbox. So it reaches
    /// resolvers on the host's loopback, which the sandbox does not.
    pub(crate) fn settings(&self, plan: &NetworkPlan) -> Result<Settings, RejectedOption> {
        let listen = plan
            .gateways()
            .map(|gateway| DnsAddress(SocketAddr::new(gateway, DNS_PORT)));
        let mut options = AgentOptions::default();
        options.objects.node = Some(source::NODE.to_owned());
        options.resolvers = ResolverOptions {
            upstream: self.upstream.clone(),
            upstream_ca: self.upstream_ca.clone(),
            listen: listen.collect(),
        };
        options.interception.intercept = InterceptionMode::Off;
        // There is no cluster here. Everyone may ask names in the cluster's domain, so this domain
        // has no names.
        options.cluster.cluster_domain =
            Name::parse("exec.namegate.invalid").map_err(|error| RejectedOption::Unreadable(error.to_string()))?;
        options.cluster.cluster_dns = Vec::new();
        options.lookups.fail_mode = FailMode::Closed;
        options.lookups.dns_match = self.dns_match;
        options.lookups.dns_denied = self.dns_denied;
        options.lookups.dns_questions = Some(self.dns_questions);
        options.leases.allow_rebind = self.allow_rebind.clone();
        options.leases.private_addresses = self.private_addresses;
        options.kernel.deny_response = self.deny_response;
        options.kernel.table = firewall::agent_table(plan.id);
        options.kernel.records_group = RecordsGroup::Group(records_group(plan.id));
        options.inspection.inspect = InspectionMode::On;
        options.process.http = HttpAddress::Off;
        options.process.state_dir = None;
        options.process.run_dir = None;
        resolve::resolve(options, &HostFacts::read())
    }
}

/// The NFLOG group of a sandbox: sandboxes share the host's network namespace, and a group has one
/// listener. Groups below are left to others.
fn records_group(id: u32) -> u16 {
    const FIRST: u16 = 32_768;
    FIRST + u16::try_from(id % u32::from(FIRST)).unwrap_or_default()
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
