//! A network namespace for one test: of the thread that runs it, and of the threads and programs
//! that it starts. Gone with them.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use enforcer::{Element, SetId};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// An upper bound for what should happen soon; only a failing test waits for it.
pub(crate) fn patience() -> Duration {
    patience::scaled(Duration::from_secs(30))
}

/// Runs a test on a thread of its own in a new namespace.
pub(crate) fn inside<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: kernel tests need root");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            new_namespace();
            run("ip", &["link", "set", "lo", "up"], "").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test());
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[allow(unsafe_code)]
fn new_namespace() {
    // SAFETY: only the network namespace changes, which no memory or descriptor of this process
    // depends on.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs nft on a text.
pub(crate) fn nft(text: &str) -> String {
    run("nft", &["-f", "-"], text).unwrap_or_else(|error| panic!("nft {text}: {error}"))
}

pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    // The program may end without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The elements of a set as nft lists them: the value, and the whole seconds that it has left.
pub(crate) fn listed(set: &str) -> Vec<(String, u64)> {
    let text = run("nft", &["-j", "list", "set", "inet", "namegate", set], "").unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let objects = document["nftables"].as_array().unwrap();
    let set = objects.iter().find_map(|object| object.get("set")).unwrap();
    let elements = set.get("elem").and_then(|elements| elements.as_array());
    let mut listed: Vec<(String, u64)> = elements
        .into_iter()
        .flatten()
        .map(|element| {
            let value = &element["elem"]["val"];
            let value = match value.get("concat").and_then(|parts| parts.as_array()) {
                Some(parts) => parts.iter().map(plain).collect::<Vec<_>>().join("."),
                None => plain(value),
            };
            (value, element["elem"]["expires"].as_u64().unwrap())
        })
        .collect();
    listed.sort();
    listed
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether the kernel holds an element, asked for by itself.
pub(crate) fn kernel_holds(element: &Element) -> bool {
    let key = match element.key.port {
        Some((protocol, port)) => format!("{} . {} . {port}", element.key.address, protocol.number()),
        None => element.key.address.to_string(),
    };
    let set = element.set.to_string();
    run("nft", &["get", "element", "inet", "namegate", &set, "{", &key, "}"], "").is_ok()
}

/// Packets to 10.99.0.0/16, which are addresses of this namespace, pass only where `set` allows
/// them.
pub(crate) fn guard(set: &SetId) {
    run("ip", &["addr", "add", "10.99.0.0/16", "dev", "lo"], "").unwrap();
    nft(&format!(
        "add chain inet namegate guard {{ type filter hook output priority 0; }}
         add rule inet namegate guard ip daddr 10.99.0.0/16 ip daddr . meta l4proto . th dport != @{set} drop"
    ));
}

/// Whether a datagram to this address may leave.
pub(crate) fn passes(socket: &UdpSocket, to: IpAddr, port: u16) -> bool {
    // What the output hook drops is EPERM to the sender.
    socket.send_to(b"?", (to, port)).is_ok()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience(), "{what}: not within {:?}", patience());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
