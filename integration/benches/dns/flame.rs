//! Where the agent's time goes: call stacks, sampled while lookups come, for `./bench flame` to
//! draw.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::agents::{Kind, Node};
use crate::load::Load;
use crate::zone::Zone;

/// Samples a second of CPU time.
const RATE: &str = "1999";
/// Octets of stack that are kept with each, to be unwound afterwards: optimised code has no frame
/// pointers.
const STACK: &str = "dwarf,16384";

/// Writes `known.perf` and `new.perf` into `directory`.
pub(crate) fn record(directory: &Path, seconds: u32) {
    let zone = Zone::new(1);
    let node = Node::start(Kind::Listening, &zone);
    let load = |queries| Load::of(&node, node.server(), queries, seconds);
    // Everything is learned.
    load(zone.known()).once().run(node.pid());

    let perf = Perf::start(node.pid(), &directory.join("known.perf"));
    load(zone.known()).run(node.pid());
    drop(perf);

    let perf = Perf::start(node.pid(), &directory.join("new.perf"));
    load(zone.next_new(0)).once().run(node.pid());
    drop(perf);
}

/// `perf record`, until it is dropped.
struct Perf(Child);

impl Perf {
    fn start(pid: u32, file: &Path) -> Self {
        let mut perf = Command::new("perf");
        // Virtual machines often have no counters of cycles.
        perf.args([
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            RATE,
            "--call-graph",
            STACK,
            "-p",
        ]);
        perf.arg(pid.to_string()).arg("-o").arg(file);
        Self(perf.stdin(Stdio::null()).spawn().expect("perf is installed"))
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // It writes its file's end then.
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}
