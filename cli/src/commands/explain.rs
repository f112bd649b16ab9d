//! `namegate explain`: tells why a connection is let through or not.

mod destination;

use std::fmt::Write;
use std::path::PathBuf;

use agent::explain::{ExplainRequest, ExplainSource, ExplainTarget, announced, answer_offline, traffic};
use api::{AddressAnswer, DirectionAnswer, ExplainAnswer, ExplainQuestion, ExplainVerdict, TrafficDirection, ask};
use thiserror::Error;

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use destination::{Destination, UrlAnnouncement};

use super::agent_socket::AgentSocket;
use super::table::printable;
use super::{OutputFormat, to_json};

/// Says whether a connection is let through, which rule decides at each end, and what is missing if
/// none does
///
/// Asks the running agent, which also knows what names have resolved to and what the kernel holds;
/// or, with --objects, reads files as the agent would, without one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when it is allowed (audited included), with 1 when it is denied, with 2 when that cannot be told.

Examples:
  namegate explain --from shop/web-0 --to api.stripe.com --port 443
  namegate explain --from shop/web-0 --to https://api.stripe.com/v1/charges
  namegate explain --from shop/web-0 --to 192.0.2.7 --port 53 --protocol udp
  namegate explain --from shop/web-0 --to shop/db-0 --port 5432
  namegate explain --from 203.0.113.9 --to shop/web-0 --port 443
  namegate explain --from shop/web-0 --to shop/users-0 --port 80 --method GET --path /users
  namegate explain --objects ./objects --from shop/web-0 --to api.stripe.com -o json")]
pub(crate) struct Args {
    /// A pod, as NAMESPACE/NAME, or NAME in the namespace default; or an address, as the node of
    /// the pod that is connected to sees it
    #[arg(long, value_name = "POD|IP")]
    from: String,
    /// A name, an address, or a pod as NAMESPACE/NAME, each also with :PORT; or a URL, which says
    /// the port, and what the connection announces
    #[arg(long, value_name = "NAME|IP|POD|URL")]
    to: String,
    /// The port, or the type of an ICMP message; without it, what --to says, or any
    #[arg(long)]
    port: Option<u16>,
    /// tcp (the default), udp, sctp, icmp or icmpv6
    #[arg(long)]
    protocol: Option<String>,
    /// The TLS server name that the connection announces, for rules with serverNames
    #[arg(long, value_name = "NAME", conflicts_with_all = ["method", "path", "host"])]
    sni: Option<String>,
    /// The method of the request that it announces, for rules about HTTP; GET where only --path or
    /// --host is said
    #[arg(long)]
    method: Option<String>,
    /// The path of that request, with the query; / by default
    #[arg(long)]
    path: Option<String>,
    /// The host of that request, with a port where one is sent
    #[arg(long)]
    host: Option<String>,
    /// Read objects from this directory, and ask no agent
    #[arg(long, value_name = "DIR")]
    objects: Option<PathBuf>,
    /// With --objects: the node that the pods run on, for what policies say of nodes; by default
    /// the spec.nodeName of the pod that connects
    #[arg(long, value_name = "NAME", requires = "objects")]
    node: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    agent: AgentSocket,
}

/// `--to`, `--port` or `--protocol` cannot be read. The text says why.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    let question = question(args)?;
    let answer = match &args.objects {
        Some(directory) => answer_offline(directory, args.node.as_deref(), &read(&question)?)?,
        None => {
            // What cannot be read is told here, whether an agent runs or not.
            read(&question)?;
            ask(args.agent.client().explain(&question))??
        }
    };
    crate::print(&match args.output {
        OutputFormat::Json => to_json(&answer)?,
        OutputFormat::Table => render(&answer, style),
    })?;
    Ok(match answer.verdict {
        ExplainVerdict::Denied => VerbOutcome::Negative,
        ExplainVerdict::Allowed | ExplainVerdict::Audited => VerbOutcome::Positive,
    })
}

/// The question as an agent is asked it. What flags say wins over what a URL says, but for the
/// port.
fn question(args: &Args) -> Result<ExplainQuestion, UsageError> {
    let Destination { to, port, announces } = Destination::read(&args.to)?;
    let port = match (args.port, port) {
        (Some(flag), Some(port)) if flag != port => {
            return Err(UsageError(format!(
                "--port says {flag}, and --to says {port}; leave one of them out"
            )));
        }
        (flag, port) => flag.or(port),
    };
    let mut question = ExplainQuestion {
        from: args.from.clone(),
        to,
        port,
        protocol: args.protocol.clone(),
        sni: args.sni.clone(),
        method: args.method.clone(),
        path: args.path.clone(),
        host: args.host.clone(),
    };
    let says_request = question.method.is_some() || question.path.is_some() || question.host.is_some();
    match announces {
        UrlAnnouncement::ServerName(name) if question.sni.is_none() && !says_request => question.sni = Some(name),
        UrlAnnouncement::Request { host, path } if question.sni.is_none() => {
            question.host.get_or_insert(host);
            question.path.get_or_insert(path);
        }
        _ => {}
    }
    Ok(question)
}

/// Reads a question as the agent does.
fn read(question: &ExplainQuestion) -> Result<ExplainRequest, UsageError> {
    Ok(ExplainRequest {
        from: ExplainSource::parse(&question.from),
        to: ExplainTarget::parse(&question.to).map_err(UsageError)?,
        traffic: traffic(question.port, question.protocol.as_deref()).map_err(UsageError)?,
        announced: announced(
            question.sni.as_deref(),
            [&question.method, &question.path, &question.host].map(Option::as_deref),
        )
        .map_err(UsageError)?,
    })
}

/// The answer as text for a terminal. Control characters are escaped, because names come from
/// others.
fn render(answer: &ExplainAnswer, style: TerminalStyle) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{}: {} to {}, {}",
        answer.verdict.to_string().to_uppercase(),
        answer.from,
        answer.to,
        answer.port
    );
    if let Some(lookup) = &answer.lookup {
        let may = if lookup.allowed {
            "may be asked"
        } else {
            "may NOT be asked"
        };
        let reason = lookup
            .reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"));
        let _ = writeln!(text, "  lookup: the name {may}{reason}");
    }
    for part in &answer.parts {
        if let Some(address) = part
            .address
            .filter(|_| answer.parts.len() > 1 || answer.lookup.is_some())
        {
            let _ = writeln!(text, "  {address}: {}", part.verdict);
        }
        render_decisions(part, &mut text);
    }
    for flow in &answer.flows {
        let _ = writeln!(
            text,
            "  live flow: {} from {} to {} is {}: {}",
            flow.protocol, flow.source, flow.destination, flow.fate, flow.reason
        );
    }
    for remark in &answer.remarks {
        let _ = writeln!(text, "  note: {remark}");
    }
    let text: String = text.lines().map(|line| printable(line.to_owned()) + "\n").collect();
    match text.split_once(':') {
        Some((verdict, rest)) => format!("{}:{rest}", style.paint(verdict)),
        None => text,
    }
}

/// Why, at each end that is a Pod. Where the sender's rules alone are asked, that goes without
/// saying.
fn render_decisions(part: &AddressAnswer, text: &mut String) {
    let egress_alone = matches!(
        part.decisions.as_slice(),
        [DirectionAnswer {
            direction: TrafficDirection::Egress,
            ..
        }]
    );
    let each = part.decisions.iter().filter(|_| !egress_alone);
    for decision in each.clone() {
        let _ = writeln!(
            text,
            "  {}: {}, because {}",
            decision.direction, decision.verdict, decision.reason
        );
        render_misses(&decision.nearest, text);
    }
    if each.count() == 0 {
        let _ = writeln!(text, "  because {}", part.reason);
        render_misses(&part.nearest, text);
    }
    if let Some(kernel) = &part.kernel {
        let _ = writeln!(text, "  kernel: {kernel}");
    }
}

fn render_misses(misses: &[String], text: &mut String) {
    for (position, miss) in misses.iter().enumerate() {
        let label = if position == 0 { "nearest miss" } else { "also near" };
        let _ = writeln!(text, "  {label}: {miss}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn explained(from: &str, to: &str, port: u16) -> String {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("objects.yaml"), include_str!("explain/objects.yaml")).unwrap();
        let request = ExplainRequest {
            from: ExplainSource::parse(from),
            to: ExplainTarget::parse(to).unwrap(),
            traffic: traffic(Some(port), None).unwrap(),
            announced: None,
        };
        render(
            &answer_offline(dir.path(), None, &request).unwrap(),
            TerminalStyle::default(),
        )
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn asked(line: &[&str]) -> Result<ExplainQuestion, UsageError> {
        let line = [&["explain", "--from", "shop/web"], line].concat();
        question(&<Command as clap::Parser>::try_parse_from(line).unwrap().args)
    }

    #[test]
    fn a_url_is_asked_for_as_flags_would_ask_for_it() {
        let of_url = asked(&["--to", "https://api.example/v1"]).unwrap();
        let flags = ["--to", "api.example", "--port", "443", "--sni", "api.example"];
        assert_eq!(of_url, asked(&flags).unwrap());
        let of_url = asked(&["--to", "http://api.example/v1", "--method", "PUT"]).unwrap();
        let flags = [
            "--to",
            "api.example",
            "--port",
            "80",
            "--method",
            "PUT",
            "--path",
            "/v1",
            "--host",
            "api.example",
        ];
        assert_eq!(of_url, asked(&flags).unwrap());
        assert_eq!(
            asked(&["--to", "api.example:80", "--port", "80"]).unwrap().port,
            Some(80)
        );
        let error = asked(&["--to", "api.example:80", "--port", "81"]).unwrap_err();
        assert!(
            error.to_string().contains("81") && error.to_string().contains("80"),
            "{error}"
        );
    }

    #[test]
    fn what_decides_and_what_is_nearest_is_said() {
        let told = [
            ("shop/web", "10.96.0.5", 5432),
            ("shop/web", "shop/db", 53),
            ("shop/web", "10.96.0.5", 53),
            ("shop/web", "www.example.com", 443),
            ("shop/web", "192.0.2.53", 53),
            ("shop/web", "shop/db", 5432),
            ("shop/guest", "shop/db", 5432),
            ("shop/db", "shop/web", 80),
            ("203.0.113.9", "shop/db", 5432),
        ]
        .map(|(from, to, port)| explained(from, to, port));
        insta::assert_snapshot!(told.join("\n"));
    }
}
