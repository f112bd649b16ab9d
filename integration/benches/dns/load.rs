//! `dnsperf` in the pod, and what the server spent meanwhile.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lab::cpu_time;

use crate::agents::Node;

/// One measurement to be made.
pub(crate) struct Load<'a> {
    node: &'a Node,
    server: SocketAddr,
    queries: PathBuf,
    seconds: u32,
    once: bool,
    outstanding: u32,
    rate: Option<u32>,
    rcode: &'static str,
}

/// What came of it.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu: Duration,
}

impl<'a> Load<'a> {
    pub(crate) fn of(node: &'a Node, server: SocketAddr, queries: PathBuf, seconds: u32) -> Self {
        Self {
            node,
            server,
            queries,
            seconds,
            once: false,
            outstanding: 200,
            rate: None,
            rcode: "NOERROR",
        }
    }

    /// Each query of the file once, in place of a time.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// The queries are denied.
    pub(crate) fn denied(mut self) -> Self {
        self.rcode = "NXDOMAIN";
        self
    }

    /// How many queries may be unanswered at a time.
    pub(crate) fn outstanding(mut self, outstanding: u32) -> Self {
        self.outstanding = outstanding;
        self
    }

    /// How many queries are sent in a second, in place of as many as are answered.
    pub(crate) fn rate(mut self, rate: u32) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Runs it; `pid` is the server, threads and children included.
    pub(crate) fn run(self, pid: u32) -> Run {
        let before = cpu_time::of(pid);
        let mut command = self.node.lab.pod(0).namespace().command("dnsperf");
        command
            .args([
                "-s",
                &self.server.ip().to_string(),
                "-p",
                &self.server.port().to_string(),
            ])
            .args(["-c", "20", "-q", &self.outstanding.to_string(), "-t", "3", "-d"])
            .arg(&self.queries);
        match self.once {
            true => command.args(["-n", "1"]),
            false => command.args(["-l", &self.seconds.to_string()]),
        };
        if let Some(rate) = self.rate {
            command.args(["-Q", &rate.to_string()]);
        }
        let output = command.stdin(Stdio::null()).output().expect("dnsperf is installed");
        let cpu = cpu_time::of(pid) - before;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let figure = |label: &str| -> f64 {
            let line = said.lines().find(|line| line.trim_start().starts_with(label));
            let word = line.and_then(|line| line.split(':').nth(1)?.split_whitespace().next());
            word.and_then(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("dnsperf said nothing of {label}\n{said}"))
        };
        // A server that answers something else is fast, and measures nothing.
        let codes = said
            .lines()
            .find(|line| line.trim_start().starts_with("Response codes"));
        assert!(
            codes.is_some_and(|codes| codes.contains(self.rcode) && !codes.contains(',')),
            "not every answer is {}: {codes:?}",
            self.rcode
        );
        Run {
            answered: figure("Queries completed") as u64,
            lost: figure("Queries lost") as u64,
            per_second: figure("Queries per second"),
            cpu,
        }
    }
}

impl Run {
    /// Microseconds of CPU time for each answered query.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered.max(1) as f64
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} µs, {:.0} q/s, {} lost",
            self.cost(),
            self.per_second,
            self.lost
        )
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
