//! The lab of the demo, and the agent that runs in it.

use std::time::Duration;
use std::{env, io};

use lab::process::{AgentProcess, Installation, PATIENCE};
use lab::{Lab, Pod, RESOLVER, RESOLVER6};

/// The resolver's records at the start. The TTL of `tickets` is short, for the step about leases.
const RECORDS: [&str; 5] = [
    "api.payments.example 60 A 198.51.100.7",
    "api.payments.example 60 AAAA 2001:db8:7::7",
    "gate.tickets.example 1 A 198.51.100.20",
    "files.archive.example 60 A 203.0.113.5",
    "mail.example 60 A 203.0.113.25",
];

/// The running lab and agent.
pub(super) struct DemoLab {
    // Fields are dropped in this order: the agent ends before its directories and its node.
    agent: AgentProcess,
    pub(super) installation: Installation,
    pub(super) lab: Lab,
}

impl DemoLab {
    /// Builds the lab and starts an agent on its node, from the binary `namegate` beside this one.
    pub(super) fn start() -> io::Result<Self> {
        let lab = Lab::builder().pods(2).build().map_err(io::Error::other)?;
        lab.resolver().set(&RECORDS).map_err(io::Error::other)?;
        let installation = Installation::new(env::current_exe()?.with_file_name("namegate"), lab.node())?;
        for (file, text) in [
            ("pods.yaml", include_str!("pods.yaml")),
            ("checkout.yaml", include_str!("checkout.yaml")),
            ("reports.yaml", include_str!("reports.yaml")),
        ] {
            installation.write_object(file, text)?;
        }
        let (resolver, resolver6) = (RESOLVER.to_string(), RESOLVER6.to_string());
        let flags = ["--upstream", &resolver, "--upstream", &resolver6, "--grace", "1s"];
        let mut agent = installation.start(flags)?;
        agent.wait_ready()?;
        Ok(Self {
            agent,
            installation,
            lab,
        })
    }

    /// The pod `shop/checkout`.
    pub(super) fn checkout(&self) -> &Pod {
        self.lab.pod(0)
    }

    /// The pod `shop/reports`.
    pub(super) fn reports(&self) -> &Pod {
        self.lab.pod(1)
    }

    pub(super) fn log(&self) -> String {
        self.agent.log().join("\n")
    }
}

/// Waits until `condition` holds. Returns how long it took, `None` if it never held.
pub(super) fn wait_until(condition: impl FnMut() -> bool) -> Option<Duration> {
    patience::wait(PATIENCE, Duration::from_millis(10), condition)
}
