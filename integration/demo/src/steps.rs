//! The steps of the demo. Each checks what it shows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::{ConnectAttempt, DnsReply, LookupTransport};
use lab::{Pod, RESOLVER, dns};

use super::demo_lab::{DemoLab, wait_until};
use super::short;

/// The pods and their policies, shown at the start.
pub(super) const PODS: &str = "  shop/checkout  may reach api.payments.example and *.tickets.example, port 443\n  \
     shop/reports   may reach files.archive.example, port 443";

/// One step of the demo.
pub(super) struct DemoStep {
    pub(super) title: &'static str,
    /// Returns what was observed, as lines of text; as an error when it is not as expected.
    pub(super) check: fn(&DemoLab) -> Result<String, String>,
}

pub(super) const STEPS: &[DemoStep] = &[
    DemoStep {
        title: "An allowed name resolves, and the first packet to its address passes",
        check: allowed_name,
    },
    DemoStep {
        title: "A name that no policy allows is answered at once, with the reason",
        check: denied_name,
    },
    DemoStep {
        title: "An address that no answer has taught is refused at once",
        check: bare_address,
    },
    DemoStep {
        title: "What one pod has learned is closed to the other",
        check: other_pod,
    },
    DemoStep {
        title: "A name moves to another address, and the policy follows with the next lookup",
        check: rotation,
    },
    DemoStep {
        title: "A lease ends for new connections, and the established one goes on",
        check: lease_end,
    },
    DemoStep {
        title: "A policy file is edited: what it opened closes, what it names now opens",
        check: policy_edit,
    },
];

/// A refusal that takes longer than this would be a timeout to the application.
const AT_ONCE: Duration = Duration::from_millis(900);

const PAYMENTS: &str = "api.payments.example";
const TICKETS: &str = "gate.tickets.example";
const ARCHIVE: &str = "files.archive.example";
const MAIL: &str = "mail.example";

fn allowed_name(demo: &DemoLab) -> Result<String, String> {
    let mut seen = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let reply = ask(demo.checkout(), PAYMENTS, kind)?;
        let address = address_of(&reply)?;
        let started = Instant::now();
        let body = demo
            .checkout()
            .http_get(address, 443, PAYMENTS)
            .map_err(|error| format!("{address}: {error}"))?;
        let (asked, got) = (short(reply.took), short(started.elapsed()));
        seen.push(format!(
            "{PAYMENTS} is {address} ({asked}), which says \"{body}\" ({got})"
        ));
    }
    Ok(seen.join("\n"))
}

fn denied_name(demo: &DemoLab) -> Result<String, String> {
    let reply = ask(demo.checkout(), MAIL, RecordType::A)?;
    let reason = reply.extended_error().map(|(code, text)| format!("EDE {code}: {text}"));
    let seen = format!(
        "{MAIL}: {} ({}), {}",
        code(&reply),
        short(reply.took),
        reason.as_deref().unwrap_or("no reason given")
    );
    let asked = demo.lab.resolver().asked(MAIL);
    let held = reply.code() == ResponseCode::NXDomain && reason.is_some() && asked == 0 && reply.took < AT_ONCE;
    verdict(held, format!("{seen}\nthe resolver was asked {asked} times for it"))
}

fn bare_address(demo: &DemoLab) -> Result<String, String> {
    let addresses = [
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 25)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 25)),
    ];
    let seen = addresses.map(|address| refused(demo.checkout(), address));
    Ok(seen.into_iter().collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn other_pod(demo: &DemoLab) -> Result<String, String> {
    let learned = address_of(&ask(demo.checkout(), PAYMENTS, RecordType::A)?)?;
    let reply = ask(demo.reports(), PAYMENTS, RecordType::A)?;
    let own = address_of(&ask(demo.reports(), ARCHIVE, RecordType::A)?)?;
    let closed = refused(demo.reports(), learned)?;
    let open = connected(demo.reports(), own)?;
    let table = demo.installation.inspect("names", &[]).map_err(text)?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let seen = format!(
        "shop/reports: {PAYMENTS} is answered {}; {closed}\nshop/reports: {ARCHIVE}: {open}\n\nnamegate names\n{table}",
        code(&reply)
    );
    verdict(reply.code() == ResponseCode::NXDomain && table.contains(PAYMENTS), seen)
}

fn rotation(demo: &DemoLab) -> Result<String, String> {
    let next = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8));
    let before = refused(demo.checkout(), next)?;
    demo.lab
        .resolver()
        .set(&[&format!("{PAYMENTS} 60 A {next}")])
        .map_err(text)?;
    let found = address_of(&ask(demo.checkout(), PAYMENTS, RecordType::A)?)?;
    let after = connected(demo.checkout(), next)?;
    verdict(found == next, format!("before: {before}\nafter the lookup: {after}"))
}

fn lease_end(demo: &DemoLab) -> Result<String, String> {
    let address = address_of(&ask(demo.checkout(), TICKETS, RecordType::A)?)?;
    let ConnectAttempt::Connected(mut connection) = demo.checkout().connect(address, 443).map_err(text)? else {
        return Err(format!("{address} cannot be reached right after the lookup"));
    };
    let closed = || {
        demo.checkout()
            .connect(address, 443)
            .is_ok_and(|attempt| attempt.is_refused())
    };
    let took = wait_until(closed).ok_or("the address stays open")?;
    let body = connection
        .get(TICKETS)
        .map_err(|error| format!("the established connection is cut: {error}"))?;
    Ok(format!(
        "1 s of TTL and 1 s of grace: {address} is refused after {}\nthe connection from before still says \"{body}\"",
        short(took)
    ))
}

fn policy_edit(demo: &DemoLab) -> Result<String, String> {
    let payments = address_of(&ask(demo.checkout(), PAYMENTS, RecordType::A)?)?;
    connected(demo.checkout(), payments)?;
    demo.installation
        .write_object("checkout.yaml", include_str!("checkout-edited.yaml"))
        .map_err(text)?;
    let closed = || {
        demo.checkout()
            .connect(payments, 443)
            .is_ok_and(|attempt| attempt.is_refused())
    };
    let took = wait_until(closed).ok_or_else(|| format!("{payments} stays open"))?;
    let allowed = || ask(demo.checkout(), MAIL, RecordType::A).is_ok_and(|reply| reply.address().is_some());
    wait_until(allowed).ok_or_else(|| format!("{MAIL} is still denied"))?;
    let mail = address_of(&ask(demo.checkout(), MAIL, RecordType::A)?)?;
    let open = connected(demo.checkout(), mail)?;
    Ok(format!(
        "{PAYMENTS}: {payments} is refused {} after the file was written\n{MAIL}: {open}",
        short(took)
    ))
}

fn ask(pod: &Pod, name: &str, kind: RecordType) -> Result<DnsReply, String> {
    pod.resolve(dns(RESOLVER), name, kind, LookupTransport::Udp)
        .map_err(|error| format!("{name}: {error}"))
}

fn address_of(reply: &DnsReply) -> Result<IpAddr, String> {
    let name = reply
        .message
        .queries
        .first()
        .map(|question| question.name().to_string())
        .unwrap_or_default();
    reply
        .address()
        .ok_or_else(|| format!("{name} is answered {} without an address", code(reply)))
}

fn refused(pod: &Pod, address: IpAddr) -> Result<String, String> {
    let started = Instant::now();
    let attempt = pod.connect(address, 443).map_err(text)?;
    let took = started.elapsed();
    let seen = match &attempt {
        ConnectAttempt::Connected(_) => format!("{address} is reachable ({})", short(took)),
        ConnectAttempt::Refused(errno) => format!("{address}: {} ({})", errno_text(*errno), short(took)),
        ConnectAttempt::TimedOut => format!("{address} does not answer ({})", short(took)),
    };
    verdict(attempt.is_refused() && took < AT_ONCE, seen)
}

fn connected(pod: &Pod, address: IpAddr) -> Result<String, String> {
    let started = Instant::now();
    match pod.connect(address, 443).map_err(text)? {
        ConnectAttempt::Connected(_) => Ok(format!("{address} connects ({})", short(started.elapsed()))),
        failed => Err(format!("{address} cannot be reached: {failed:?}")),
    }
}

/// The response code as RFCs write it: NXDOMAIN, SERVFAIL.
fn code(reply: &DnsReply) -> String {
    format!("{:?}", reply.code()).to_uppercase()
}

/// The text of an errno, without its number.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn verdict(held: bool, seen: String) -> Result<String, String> {
    if held { Ok(seen) } else { Err(seen) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
