//! A node with two pods and an agent on it, made anew for each fault.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use lab::{NumberedNames, RESOLVER, RESOLVER6, Topology};
use namegate_integration::{Scenario, ScenarioBuilder, fqdn_policy};

/// An address that no name leads to and no policy opens.
pub(crate) const DENIED: &str = "203.0.113.25";
/// A name that both pods may reach, and its address.
pub(crate) const LIVE: (&str, &str) = ("live.example", "198.51.100.7");
/// A name that nobody may ask. It has an address, [`DENIED`]: a lookup that goes past the agent is
/// told by that.
pub(crate) const DENIED_NAME: &str = "mail.denied.example";
/// What the names end in that nobody has asked yet.
pub(crate) const NEW: &str = "new.example";

/// What the pods may reach, as `toFQDNs` selectors.
const SELECTORS: &str = "{matchName: live.example}, {matchPattern: '**.new.example'}";

/// How lookups come to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Dnat,
    Tproxy,
}

impl Mode {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "dnat" => Self::Dnat,
            "tproxy" => Self::Tproxy,
            other => {
                eprintln!("reliability: --mode is dnat or tproxy, not {other}");
                std::process::exit(2)
            }
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dnat => "dnat",
            Self::Tproxy => "tproxy",
        })
    }
}

/// The agent that is broken: another build, or the one of this tree.
pub(crate) fn binary() -> String {
    std::env::var("NAMEGATE_BINARY").unwrap_or(env!("CARGO_BIN_EXE_namegate-under-test").into())
}

/// Two pods that may reach [`LIVE`] and every name under [`NEW`], and an agent that is ready.
pub(crate) fn start(mode: Mode, flags: &str) -> Scenario {
    let mut scenario = ScenarioBuilder::new(&binary())
        .topology(Topology::Routed)
        .upstreams(&[&RESOLVER.to_string(), &RESOLVER6.to_string()])
        .flags(&format!("--intercept {mode} {flags}"))
        .object("policy.yaml", fqdn_policy("reliability", SELECTORS, 9))
        .records(&[
            &format!("{} 5 A {}", LIVE.0, LIVE.1),
            &format!("{DENIED_NAME} 5 A {DENIED}"),
        ])
        .start();
    // A fault is measured by what pods see; what the log says of it is one of its columns.
    scenario.expect_errors("");
    scenario.lab().resolver().synthesize(NumberedNames {
        suffix: NEW.into(),
        ttl: 5,
        addresses: 1,
        first4: Ipv4Addr::new(198, 18, 0, 0),
        first6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0),
    });
    scenario
}
