//! The faults. Each breaks a node while its pods work, and does for it what an administrator would
//! do, if anything.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::{RESOLVER, ScriptedAnswer, dns};
use namegate_integration::Scenario;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::probes;
use crate::site::{LIVE, Mode, NEW};

/// One way to break a node.
pub(crate) struct Fault {
    /// As the table names it.
    pub(crate) name: &'static str,
    /// Where it exists.
    pub(crate) modes: &'static [Mode],
    /// Flags of the agent.
    pub(crate) flags: &'static str,
    /// Part of the short form.
    pub(crate) short: bool,
    /// Denied packets pass until it is repaired: the rules themselves are gone.
    pub(crate) lets_through: bool,
    /// Allowed addresses are refused until it is over: what should have taught them, or was taught,
    /// is gone.
    pub(crate) refuses: bool,
    /// Lookups go past the agent until it is over: in fail-mode open it is stopped or gone, or the
    /// rules that intercept them are.
    pub(crate) passes_agent: bool,
    /// What is set up before anything is measured.
    pub(crate) prepare: fn(&mut Scenario),
    pub(crate) break_it: fn(&mut Scenario),
}

const BOTH: &[Mode] = &[Mode::Dnat, Mode::Tproxy];

const FAULT: Fault = Fault {
    name: "",
    modes: BOTH,
    flags: "",
    short: false,
    lets_through: false,
    refuses: false,
    passes_agent: false,
    prepare: |_| {},
    break_it: |_| {},
};

/// Every fault of the table.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "none",
        short: true,
        ..FAULT
    },
    Fault {
        name: "kill -9, started again after 2 s",
        passes_agent: true,
        refuses: true,
        break_it: kill_and_start,
        ..FAULT
    },
    Fault {
        name: "kill -9, started again after 2 s, fail-mode closed",
        refuses: true,
        flags: "--fail-mode closed",
        break_it: kill_and_start,
        ..FAULT
    },
    Fault {
        name: "kill -9 ten times, supervised",
        flags: "--supervise",
        break_it: kill_workers,
        ..FAULT
    },
    // In fail-mode open lookups pass the agent where a worker's start takes longer than the
    // heartbeat lives, as on a machine with ten times more work than processors.
    Fault {
        name: "kill -9 ten times, supervised, fail-mode closed",
        flags: "--supervise --fail-mode closed",
        short: true,
        break_it: kill_workers,
        ..FAULT
    },
    Fault {
        name: "SIGSTOP for 6 s",
        passes_agent: true,
        refuses: true,
        break_it: stall,
        ..FAULT
    },
    Fault {
        name: "upgrade",
        short: true,
        prepare: |scenario| {
            // Else the kernel resets a connection whose handshake is under way when a listener is
            // closed.
            scenario.lab().node().set_sysctl("ipv4/tcp_migrate_req", "1").unwrap();
        },
        break_it: |scenario| {
            scenario.upgrade();
        },
        ..FAULT
    },
    Fault {
        name: "second agent on the same directories",
        break_it: second_agent,
        ..FAULT
    },
    Fault {
        name: "table flushed",
        passes_agent: true,
        lets_through: true,
        refuses: true,
        short: true,
        break_it: |scenario| drop(scenario.nft("flush table inet namegate")),
        ..FAULT
    },
    Fault {
        name: "chain of the forward hook flushed",
        lets_through: true,
        refuses: true,
        break_it: |scenario| drop(scenario.nft("flush chain inet namegate forward")),
        ..FAULT
    },
    Fault {
        name: "map of sources flushed",
        lets_through: true,
        refuses: true,
        break_it: |scenario| drop(scenario.nft("flush map inet namegate dispatch4")),
        ..FAULT
    },
    Fault {
        name: "learned sets flushed",
        refuses: true,
        break_it: flush_learned,
        ..FAULT
    },
    Fault {
        name: "table deleted",
        passes_agent: true,
        lets_through: true,
        refuses: true,
        break_it: |scenario| drop(scenario.nft("delete table inet namegate")),
        ..FAULT
    },
    Fault {
        name: "whole ruleset flushed",
        passes_agent: true,
        lets_through: true,
        refuses: true,
        break_it: |scenario| drop(scenario.nft("flush ruleset")),
        ..FAULT
    },
    Fault {
        name: "listening addresses removed from lo",
        modes: &[Mode::Dnat],
        break_it: |scenario| {
            drop(scenario.shell(
                "ip -o addr show dev lo | awk '$4 !~ /^(127\\.|::1)/ {print $4}' |
                 while read address; do ip addr del \"$address\" dev lo; done",
            ))
        },
        ..FAULT
    },
    Fault {
        name: "rules and routes of tproxy removed",
        passes_agent: true,
        modes: &[Mode::Tproxy],
        break_it: |scenario| {
            drop(scenario.shell(
                "ip rule show | grep -q 5353; ip route flush table 5353; ip -6 route flush table 5353;
                 while ip rule del table 5353 2>/dev/null; do :; done;
                 while ip -6 rule del table 5353 2>/dev/null; do :; done",
            ))
        },
        ..FAULT
    },
    Fault {
        name: "resolver silent for 3 s",
        break_it: |scenario| {
            for name in [LIVE.0, NEW] {
                let _ = scenario.lab().resolver().script(name, ScriptedAnswer::Silence);
            }
            thread::sleep(Duration::from_secs(3));
            for name in [LIVE.0, NEW] {
                let _ = scenario.lab().resolver().script(name, None);
            }
        },
        ..FAULT
    },
    Fault {
        name: "disk full",
        prepare: small_disk,
        break_it: |scenario| {
            let state = scenario.installation().scratch("state");
            let mut file = fs::File::create(state.join("filler")).unwrap();
            while file.write_all(&[0; 4_096]).is_ok() {}
            // A policy edit and new names are to be written down meanwhile.
            scenario.allow(0, &["other.example"]);
            thread::sleep(Duration::from_secs(3));
            fs::remove_file(state.join("filler")).unwrap();
        },
        ..FAULT
    },
    Fault {
        name: "corrupted state, and a restart",
        passes_agent: true,
        refuses: true,
        break_it: |scenario| {
            thread::sleep(Duration::from_secs(1));
            scenario.terminate();
            for entry in fs::read_dir(scenario.installation().scratch("state")).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let mut bytes = fs::read(&path).unwrap();
                    for at in (0..bytes.len()).step_by(7) {
                        bytes[at] ^= 0x5a;
                    }
                    fs::write(&path, bytes).unwrap();
                }
            }
            scenario.start();
        },
        ..FAULT
    },
    Fault {
        name: "conntrack full",
        break_it: fill_conntrack,
        ..FAULT
    },
    Fault {
        name: "boot clock a day ahead after a restart",
        passes_agent: true,
        refuses: true,
        break_it: |scenario| {
            scenario.terminate();
            scenario.start_in_time("--boottime 86400");
        },
        ..FAULT
    },
    Fault {
        name: "MTU 1280 everywhere",
        prepare: |scenario| {
            let node = scenario.lab().node();
            for link in node.links().unwrap() {
                if link != "lo" {
                    node.set_mtu(&link, 1_280).unwrap();
                }
            }
        },
        ..FAULT
    },
    Fault {
        name: "descriptors exhausted for 3 s",
        break_it: |scenario| {
            let pid = Pid::from_raw(scenario.agent().pid().cast_signed()).unwrap();
            let open = fs::read_dir(format!("/proc/{}/fd", scenario.agent().pid()))
                .unwrap()
                .count();
            let few = Rlimit {
                current: Some(open as u64),
                // The agent's own, which only CAP_SYS_RESOURCE may raise.
                maximum: getrlimit(Resource::Nofile).maximum,
            };
            let before = prlimit(Some(pid), Resource::Nofile, few).unwrap();
            // Edits need files, and lookups over TCP need sockets.
            scenario.allow(0, &["other.example"]);
            thread::sleep(Duration::from_secs(3));
            prlimit(Some(pid), Resource::Nofile, before).unwrap();
        },
        ..FAULT
    },
    Fault {
        name: "CPU starved for 5 s",
        break_it: |scenario| {
            let pid = scenario.agent().pid();
            drop(scenario.shell(&format!("renice -n 19 -p $(ls /proc/{pid}/task) >/dev/null")));
            let burning: Vec<Burner> = (0..6).map(|_| Burner::start()).collect();
            thread::sleep(Duration::from_secs(5));
            drop(burning);
            drop(scenario.shell(&format!("renice -n 0 -p $(ls /proc/{pid}/task) >/dev/null")));
        },
        ..FAULT
    },
    Fault {
        name: "directory of objects emptied for 3 s",
        short: true,
        break_it: |scenario| {
            let objects = scenario.installation().objects();
            let away = scenario.installation().scratch("objects-away");
            fs::rename(&objects, &away).unwrap();
            fs::create_dir(&objects).unwrap();
            thread::sleep(Duration::from_secs(3));
            fs::remove_dir(&objects).unwrap();
            fs::rename(&away, &objects).unwrap();
        },
        ..FAULT
    },
    Fault {
        name: "policy cut off while it is written",
        break_it: |scenario| {
            let path = scenario.installation().objects().join("policy.yaml");
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..0]).unwrap();
            thread::sleep(Duration::from_secs(1));
            fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            thread::sleep(Duration::from_secs(1));
            fs::write(&path, whole).unwrap();
        },
        ..FAULT
    },
    Fault {
        name: "one pod asks 3,000 names a second for 5 s",
        break_it: |scenario| flood(scenario, Duration::from_secs(5)),
        ..FAULT
    },
];

fn kill_and_start(scenario: &mut Scenario) {
    scenario.kill();
    thread::sleep(Duration::from_secs(2));
    scenario.start();
}

/// Kills the process that works, under the one that watches it.
fn kill_workers(scenario: &mut Scenario) {
    for _ in 0..10 {
        let supervisor = scenario.agent().pid();
        let before = only_child(supervisor);
        let Some(worker) = before else {
            panic!("the supervisor {supervisor} has no worker")
        };
        kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
        scenario.wait_until("another worker is there", || {
            only_child(supervisor).is_some_and(|child| Some(child) != before)
        });
        thread::sleep(Duration::from_millis(1_500));
    }
}

fn only_child(pid: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn stall(scenario: &mut Scenario) {
    let pid = Pid::from_raw(scenario.agent().pid().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    thread::sleep(Duration::from_secs(6));
    kill_process(pid, Signal::CONT).unwrap();
}

fn second_agent(scenario: &mut Scenario) {
    let mut second = scenario.start_second();
    thread::sleep(Duration::from_secs(2));
    let _ = second.kill();
}

fn flush_learned(scenario: &mut Scenario) {
    let listing = scenario.nft("list sets inet");
    let mut script = String::new();
    for line in listing.lines() {
        if let Some(name) = line.trim().strip_prefix("set ").map(|rest| rest.trim_end_matches(" {"))
            && ["allow", "deny"].iter().any(|class| name.starts_with(class))
        {
            script.push_str(&format!("flush set inet namegate {name}; "));
        }
    }
    if !script.is_empty() {
        drop(scenario.nft(&script));
    }
}

fn small_disk(scenario: &mut Scenario) {
    scenario.terminate();
    let state = scenario.installation().scratch("state");
    drop(scenario.shell(&format!("mount -t tmpfs -o size=256k none {}", state.display())));
    scenario.start();
}

/// A datagram for each entry that the table has room for, from the pod to a port that nobody
/// answers.
fn fill_conntrack(scenario: &mut Scenario) {
    let most: u32 = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(262_144);
    let pod = scenario.pod(0).clone();
    let flood = || {
        let until = Instant::now() + Duration::from_secs(6);
        let mut sent = 0;
        'ports: for local in 0.. {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 1_024..65_000u16 {
                let to = SocketAddr::new([203, 0, 113, (local % 250 + 1) as u8].into(), port);
                let _ = socket.send_to(&[0], to);
                sent += 1;
                if sent > most * 2 || Instant::now() > until {
                    break 'ports;
                }
            }
        }
    };
    pod.namespace().run(flood).unwrap();
}

/// New names as fast as one pod can ask them, without waiting for answers.
fn flood(scenario: &mut Scenario, time: Duration) {
    let pod = scenario.pod(0).clone();
    let ask = || {
        let until = Instant::now() + time;
        let mut number = 500_000u32;
        while Instant::now() < until {
            for _ in 0..3 {
                number += 1;
                let _ = probes::send(&format!("n{number}.{NEW}"), 7, dns(RESOLVER));
            }
            thread::sleep(Duration::from_millis(1));
        }
    };
    pod.namespace().run(ask).unwrap();
}

/// A process that does nothing but take CPU time, ended when it is dropped.
struct Burner(Child);

impl Burner {
    fn start() -> Self {
        let child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
