//! The names that are asked, and NSD that serves them.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use lab::BAD_RESOLVER;
use tempfile::TempDir;

/// Where NSD serves: an address of the node itself.
pub(crate) const UPSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 53));
/// Where it serves for the agents that intercept: what a pod asks must not be an address of the
/// node, and so every query and every answer takes a link more.
pub(crate) const FAR_UPSTREAM: IpAddr = IpAddr::V4(BAD_RESOLVER);

/// Names whose addresses are known after the first pass.
const KNOWN: u32 = 10_000;
/// Those that are asked where few lookups come: so few that each is asked again before its lease is
/// to be renewed.
const FEW: u32 = 100;
/// Fresh names of one round: each opens two addresses that no other name has. Together with those
/// of the second round and the known ones they are 100,000.
const NEW: u32 = 42_500;
/// And so many that are asked one at a time.
const LONE: u32 = 2_500;

const HEAD: &str = "$TTL 300\n@ SOA ns.bench.test. admin.bench.test. 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\n";

/// Files in a directory that goes with it.
pub(crate) struct Zone {
    directory: TempDir,
}

impl Zone {
    pub(crate) fn new(slices: usize) -> Self {
        let zone = Self {
            directory: TempDir::new().unwrap(),
        };
        let mut text = String::from(HEAD);
        let mut address = u32::from_be_bytes([20, 0, 0, 0]);
        let mut next = || {
            address += 1;
            let [a, b, c, d] = address.to_be_bytes();
            format!("{a}.{b}.{c}.{d}")
        };
        let mut name = |text: &mut String, name: &str| {
            writeln!(text, "{name} A {}\n{name} A {}", next(), next()).unwrap();
        };
        let mut queries = |file: &str, names: &mut dyn Iterator<Item = String>, text: Option<&mut String>| {
            let names: Vec<String> = names.collect();
            let lines: String = names.iter().map(|name| format!("{name}.bench.test A\n")).collect();
            fs::write(zone.file(file), lines).unwrap();
            if let Some(text) = text {
                names.iter().for_each(|it| name(text, it));
            }
        };
        queries("known", &mut (0..KNOWN).map(|i| format!("n{i}.known")), Some(&mut text));
        queries("few", &mut (0..FEW).map(|i| format!("n{i}.known")), None);
        queries("denied", &mut (0..KNOWN).map(|i| format!("n{i}.denied")), None);
        for slice in 0..slices {
            for (what, count) in [("new", NEW), ("lone", LONE)] {
                let names = &mut (0..count).map(|i| format!("n{i}.{what}{slice}.new"));
                queries(&format!("{what}{slice}"), names, Some(&mut text));
            }
        }
        zone.write(&text);
        zone
    }

    /// These names alone, all of them among the known.
    pub(crate) fn of<'a>(names: impl Iterator<Item = (String, &'a [Ipv4Addr])>) -> Self {
        let zone = Self {
            directory: TempDir::new().unwrap(),
        };
        let (mut text, mut queries) = (String::from(HEAD), String::new());
        for (name, addresses) in names {
            writeln!(queries, "{name}.bench.test A").unwrap();
            for address in addresses {
                writeln!(text, "{name} A {address}").unwrap();
            }
        }
        fs::write(zone.known(), queries).unwrap();
        zone.write(&text);
        zone
    }

    fn write(&self, text: &str) {
        fs::write(self.file("zone"), text).unwrap();
        for (file, address) in [("nsd.conf", UPSTREAM), ("nsd-far.conf", FAR_UPSTREAM)] {
            fs::write(self.file(file), self.nsd(address)).unwrap();
        }
    }

    fn nsd(&self, address: IpAddr) -> String {
        // It limits equal answers to 200 a second unless told otherwise.
        format!(
            "server:\n  ip-address: {address}\n  port: 53\n  username: \"\"\n  chroot: \"\"\n  rrl-ratelimit: 0\n  server-count: 1\n  \
             zonesdir: \"\"\n  pidfile: \"\"\n  database: \"\"\n  xfrdfile: \"\"\n  logfile: \"{}\"\n\
             remote-control:\n  control-enable: no\nzone:\n  name: bench.test\n  zonefile: \"{}\"\n",
            self.file("nsd.log").display(),
            self.file("zone").display()
        )
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn known(&self) -> PathBuf {
        self.file("known")
    }

    /// A few of the known names.
    pub(crate) fn few(&self) -> PathBuf {
        self.file("few")
    }

    pub(crate) fn denied(&self) -> PathBuf {
        self.file("denied")
    }

    /// Names that nobody has asked before.
    pub(crate) fn next_new(&self, slice: usize) -> PathBuf {
        self.file(&format!("new{slice}"))
    }

    /// As [`next_new`](Self::next_new), to be asked one at a time.
    pub(crate) fn next_lone(&self, slice: usize) -> PathBuf {
        self.file(&format!("lone{slice}"))
    }
}
