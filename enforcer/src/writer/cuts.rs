//! Cuts flows, and takes the chains for that away when nothing is cut any more.

use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use clock::Time;
use policy::Protocol;

use crate::conntrack::ConntrackEntry;
use crate::netlink::objects::TableCommand;
use crate::ruleset::cut_chains::{self, CutEnds};

use super::error::InstallError;
use super::install_failure::InstallFailure;
use super::kernel::NfTables;
use super::kernel_writer::KernelWriter;

/// The most flows that are cut in one transaction, which takes some milliseconds.
const AT_ONCE: usize = 1024;

/// How often it is seen whether anything is cut still.
const EVERY: Duration = Duration::from_secs(1);

/// Flows that are to be cut, or to be let through again.
#[derive(Debug)]
pub(super) struct CutRequest {
    pub(super) cuts: Vec<(CutEnds, Duration)>,
    pub(super) restored: Vec<CutEnds>,
    /// Takes one answer, and never blocks.
    pub(super) answer: SyncSender<Result<(), InstallError>>,
}

/// How a tracked flow is cut; `None` where it is enough to forget it. ICMP has no ends that a
/// packet of the other side would make an entry with.
pub(super) fn of_entry(entry: &ConntrackEntry) -> Option<(CutEnds, Duration)> {
    let icmp = [Protocol::Icmp, Protocol::Icmpv6].map(Protocol::number);
    let ends = CutEnds {
        protocol: entry.protocol,
        ends: [SocketAddr::new(entry.source, entry.source_port), entry.reply_source],
    };
    // The kernel counts whole seconds.
    let left = entry.left + Duration::from_secs(1);
    (!icmp.contains(&entry.protocol)).then_some((ends, left))
}

impl KernelWriter<NfTables> {
    /// Carries a request out, and answers it.
    pub(super) fn cut(&mut self, request: CutRequest) {
        let CutRequest { cuts, restored, answer } = request;
        let now = clock::now();
        let outcome = self.write_cuts(&cuts).and_then(|()| self.restore(&restored));
        if outcome.is_ok() {
            let until = cuts.iter().map(|(ends, left)| (*ends, now + *left));
            self.cuts.until.extend(until);
        }
        // The caller may be gone; the flows are cut all the same.
        let _ = answer.send(outcome.map_err(InstallError::from));
    }

    fn restore(&mut self, flows: &[CutEnds]) -> Result<(), InstallFailure> {
        if !self.cuts.stand {
            return Ok(());
        }
        for some in flows.chunks(AT_ONCE) {
            self.transact(&cut_chains::restoration(some))?;
            for ends in some {
                self.cuts.until.remove(ends);
            }
        }
        // If nothing is cut any more.
        self.cuts.next_look = Time::default();
        Ok(())
    }

    fn write_cuts(&mut self, cuts: &[(CutEnds, Duration)]) -> Result<(), InstallFailure> {
        for some in cuts.chunks(AT_ONCE) {
            let commands = cut_chains::commands(some);
            self.transact(&commands)?;
            self.cuts.stand = true;
            self.note_cut_chains(&commands);
        }
        Ok(())
    }

    /// Has the chains guarded, which were written anew.
    fn note_cut_chains(&mut self, commands: &[TableCommand]) {
        let Some(guard) = &mut self.guard else { return };
        for chain in cut_chains::chains() {
            let is_of_chain =
                |command: &&TableCommand| matches!(command, TableCommand::AddRule(name, _) if **name == *chain);
            let rules = commands.iter().filter(is_of_chain).count();
            guard.written.chains.insert(chain.to_owned(), rules);
            guard.rewritten.insert(chain.to_owned());
        }
        guard.settled = false;
    }

    /// Cuts again what is to be cut still, in a table that was made anew.
    pub(super) fn restore_cuts(&mut self) -> Result<(), InstallFailure> {
        let now = clock::now();
        self.cuts.until.retain(|_, until| *until > now);
        let left = self.cuts.until.iter().map(|(ends, until)| (*ends, until.since(now)));
        let left: Vec<_> = left.collect();
        self.write_cuts(&left)
    }

    /// Removes the chains if nothing is cut any more. The sets tell, because agents before this one
    /// may have cut flows too.
    pub(super) fn end_cuts(&mut self) {
        let now = clock::now();
        if !self.cuts.stand || now < self.cuts.next_look {
            return;
        }
        self.cuts.next_look = now + EVERY;
        self.cuts.until.retain(|_, until| *until > now);
        if !self.cuts.until.is_empty() {
            return;
        }
        let holds_any = cut_chains::set_names().any(|set| self.kernel.holds_any(&set).unwrap_or(true));
        if holds_any {
            return;
        }
        match self.transact(&cut_chains::removal()) {
            // If they are missing, somebody has removed them, or the table.
            Ok(()) | Err(InstallFailure::Missing(_)) => {
                self.cuts.stand = false;
                if let Some(guard) = &mut self.guard {
                    guard.written.chains.retain(|name, _| !cut_chains::is_chain(name));
                }
            }
            Err(failure) => tracing::warn!(?failure, "the chains for flows that were cut could not be removed"),
        }
    }
}
