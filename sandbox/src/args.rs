//! The flags of `namegate exec`, and the settings of its agent that follow from them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use dns_proxy::Rcode;
use enforcer::FailMode;
use ipnet::IpNet;
use names::{Name, Pattern};
use policy::{DenyResponse, QuestionMode};
use settings::options::ResolverOptions;
use settings::{
    AgentOptions, DnsAddress, HostFacts, HttpAddress, InterceptionMode, NameMatching, PrivateAddresses, RecordsGroup,
    RejectedOption, Settings, UpstreamAddress, choice, resolve,
};

use crate::child::DNS_PORT;
use crate::network_plan::NetworkPlan;
use crate::{firewall, source};

/// Runs a command in a fresh network namespace that reaches only the names it is allowed.
///
/// The exit code is the command's, or 128 and the signal that ended it; 127 when it is not found,
/// 126 when it cannot be executed, 2 when the sandbox cannot be made.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name that may be reached, on every port; with stars a pattern, as in matchPattern
    /// (repeatable)
    #[arg(long, value_name = "NAME|PATTERN", value_parser = pattern)]
    allow: Vec<Pattern>,

    /// File with policies that apply to the command (repeatable)
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
    pub(crate) fn allowed(&self) -> &[Pattern] {
        &self.allow
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
        options.kernel.records_group = RecordsGroup::Off;
        options.process.http = HttpAddress::Off;
        options.process.state_dir = None;
        options.process.run_dir = None;
        resolve::resolve(options, &HostFacts::read())
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    if text.contains('*') {
        Pattern::pattern(text)
    } else {
        Pattern::name(text)
    }
    .map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
