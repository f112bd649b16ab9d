//! What the writer needs of the kernel, in the enforcer's own types.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::layout::{ALIVE_SET, ElementKey, IpFamily, SetId, SetKind};
use crate::netlink::batch::ElementOp;
use crate::netlink::dump;
use crate::netlink::objects::{MapValue, TableCommand};
use crate::netlink::socket::{CommitError, NetfilterSocket};
use crate::netlink::table_snapshot::{self, RawElement, TableSnapshot};
use crate::netlink::transaction::CommandError;

use super::element_key::{decode_key, encode_key};
use super::error::InstallError;
use super::probe;
use super::renewal::Renewal;

/// One nftables table in one network namespace. Tests replace it by a model.
pub(super) trait Kernel {
    /// Applies all operations or none.
    fn commit(&mut self, operations: &[ElementOp]) -> Result<(), CommitError>;

    /// The learned sets that exist, with their capacity in live elements. Empty without a table.
    fn learned_sets(&mut self) -> io::Result<Vec<(SetId, u32)>>;

    /// The live elements of a learned set with their remaining time; `None` without a timeout.
    fn elements(&mut self, set: &SetId) -> io::Result<Vec<(ElementKey, Option<Duration>)>>;

    /// The live keys of the heartbeat's set, with their remaining time.
    fn heartbeats(&mut self) -> io::Result<Vec<(u8, Duration)>>;

    /// Opens a new socket after an exchange went wrong, so that no late reply is read.
    fn reconnect(&mut self) -> io::Result<()>;
}

/// The kernel's nf_tables.
#[derive(Debug)]
pub(super) struct NfTables {
    table: String,
    socket: NetfilterSocket,
    /// How many transactions of this socket the kernel has carried out.
    transactions: u32,
}

impl NfTables {
    /// Opens a socket for the table of this name, whether it exists or not, in the calling thread's
    /// network namespace.
    pub(super) fn open(table: &str) -> io::Result<Self> {
        Ok(Self {
            table: table.to_owned(),
            socket: NetfilterSocket::open()?,
            transactions: 0,
        })
    }

    /// Finds out how this kernel renews elements, in a scratch table.
    pub(super) fn probe_renewal(&mut self) -> Result<Renewal, InstallError> {
        probe::renewal(&mut self.socket, &self.table)
    }

    /// The name of the table.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Carries out commands as one transaction.
    pub(super) fn transact(&mut self, commands: &[TableCommand]) -> io::Result<Result<(), Vec<CommandError>>> {
        let outcome = self.socket.transact(&self.table, commands)?;
        if outcome.is_ok() && !commands.is_empty() {
            self.transactions = self.transactions.wrapping_add(1);
        }
        Ok(outcome)
    }

    /// The number of the last transaction in this network namespace, whoever made it.
    pub(super) fn generation(&mut self) -> io::Result<u32> {
        self.socket
            .ask_one(table_snapshot::ask_generation, table_snapshot::read_generation)
    }

    /// How many transactions of this socket the kernel has carried out.
    pub(super) fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Reads the table, its chains, rules and sets.
    pub(super) fn structure(&mut self) -> io::Result<TableSnapshot> {
        let table = self.table.as_str();
        let tables = self.socket.dump(table_snapshot::ask_tables, |message, found| {
            found.extend(table_snapshot::read_table(message, table));
        })?;
        let mut structure = TableSnapshot {
            table: tables.into_iter().next(),
            ..TableSnapshot::default()
        };
        if structure.table.is_none() {
            return Ok(structure);
        }
        let chains = self.socket.dump(dump::ask_chains, |message, found| {
            found.extend(table_snapshot::read_chain(message, table));
        });
        let rules = self.socket.dump(
            |sequence| table_snapshot::ask_rules(table, sequence),
            |message, found| found.extend(table_snapshot::read_rule(message, table)),
        );
        let sets = self.socket.dump(
            |sequence| dump::ask_sets(table, sequence),
            |message, found| found.extend(table_snapshot::read_set(message, table)),
        );
        for parts in [chains, rules, sets] {
            match parts {
                Ok(parts) => parts.into_iter().for_each(|part| structure.take(part)),
                // The table was deleted meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(TableSnapshot::default()),
                Err(error) => return Err(error),
            }
        }
        Ok(structure)
    }

    /// The remaining time of an element of a learned set, `None` inside without a timeout; `None`
    /// where the set does not hold the element.
    pub(super) fn element(&mut self, set: &SetId, key: &ElementKey) -> io::Result<Option<Option<Duration>>> {
        let (table, name, key) = (self.table.as_str(), set.to_string(), encode_key(key));
        let answer = self.socket.ask_one(
            |sequence| dump::ask_element(table, &name, &key, sequence),
            |message| dump::read_elements(message).next(),
        );
        match answer {
            Ok(element) => Ok(Some(element.remaining)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The elements of a set of the whole table.
    pub(super) fn entries(&mut self, set: &str) -> io::Result<BTreeMap<RawElement, Option<MapValue>>> {
        let table = self.table.as_str();
        let entries = self.socket.dump(
            |sequence| dump::ask_elements(table, set, sequence),
            |message, found| found.extend(table_snapshot::read_entries(message)),
        )?;
        Ok(entries.into_iter().collect())
    }

    /// Whether a set holds any live element.
    pub(super) fn holds_any(&mut self, set: &str) -> io::Result<bool> {
        Ok(!self.entries(set)?.is_empty())
    }

    /// The packets that each named counter of the table has counted.
    pub(super) fn counters(&mut self) -> io::Result<BTreeMap<String, u64>> {
        let table = self.table.as_str();
        let counters = self.socket.dump(
            |sequence| dump::ask_objects(table, sequence),
            |message, found| found.extend(dump::read_counter(message, table)),
        )?;
        Ok(counters.into_iter().collect())
    }

    /// The sets of the table; `None` without a table. A set that has the name of a learned set and
    /// another form is left out: a program that is given such a set would open nothing, so that
    /// making our own must fail and be reported.
    fn sets(&mut self) -> io::Result<Option<Vec<dump::SetSummary>>> {
        let table = self.table.as_str();
        let sets = self.socket.dump(
            |sequence| dump::ask_sets(table, sequence),
            |message, found| found.extend(dump::read_set(message, table).filter(is_as_named)),
        );
        match sets {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            sets => sets.map(Some),
        }
    }
}

impl Kernel for NfTables {
    fn commit(&mut self, operations: &[ElementOp]) -> Result<(), CommitError> {
        self.socket.commit(&self.table, operations)?;
        if !operations.is_empty() {
            self.transactions = self.transactions.wrapping_add(1);
        }
        Ok(())
    }

    fn learned_sets(&mut self) -> io::Result<Vec<(SetId, u32)>> {
        // Twice the capacity was declared (Desired::capacity).
        let capacity = |size: Option<u32>| size.map_or(u32::MAX, |size| (size / 2).max(1));
        let sets = self.sets()?.unwrap_or_default();
        Ok(sets
            .iter()
            .filter_map(|set| Some((set.name.parse().ok()?, capacity(set.size))))
            .collect())
    }

    fn elements(&mut self, set: &SetId) -> io::Result<Vec<(ElementKey, Option<Duration>)>> {
        let name = set.to_string();
        self.socket.dump(
            |sequence| dump::ask_elements(&self.table, &name, sequence),
            |message, found| {
                found.extend(
                    dump::read_elements(message)
                        .filter_map(|element| Some((decode_key(set, &element.key)?, element.remaining))),
                );
            },
        )
    }

    fn heartbeats(&mut self) -> io::Result<Vec<(u8, Duration)>> {
        self.socket.dump(
            |sequence| dump::ask_elements(&self.table, ALIVE_SET, sequence),
            |message, found| {
                let beat = |element: dump::StandingElement| {
                    // Only somebody else writes one without a timeout.
                    Some((*element.key.first()?, element.remaining.unwrap_or(Duration::MAX)))
                };
                found.extend(dump::read_elements(message).filter_map(beat));
            },
        )
    }

    fn reconnect(&mut self) -> io::Result<()> {
        self.socket = NetfilterSocket::open()?;
        Ok(())
    }
}

/// Whether a set that has the name of a learned set has the form of one.
fn is_as_named(set: &dump::SetSummary) -> bool {
    let Ok(id) = set.name.parse::<SetId>() else {
        return true;
    };
    let address = match id.family {
        IpFamily::V4 => 4,
        IpFamily::V6 => 16,
    };
    // Each part of a key takes four bytes or a multiple.
    let rest = match id.kind {
        SetKind::Exact => 8,
        SetKind::Range(_) | SetKind::All => 0,
    };
    set.timeouts && set.key_length == address + rest
}
