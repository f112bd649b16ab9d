//! The ledger as bytes, so that it can leave the process and come back.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::IpAddr;

use clock::Time;
use names::Name;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::leases::AddressLease;
use crate::ledger::Ledger;
use crate::name_table::{LeaseOwner, NameRecord};
use crate::teacher::Teacher;

/// Why bytes are not a snapshot.
#[derive(Debug, Error)]
pub enum LedgerSnapshotError {
    /// Not JSON, or not of this shape.
    #[error("the snapshot cannot be read: {0}")]
    Malformed(String),
    /// Its source fails.
    #[error("the snapshot cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Written by another version.
    #[error("the snapshot has version {0}, and this version reads {VERSION} and {BEFORE}")]
    Version(u32),
    /// Written before the machine was last booted: its moments mean nothing now.
    #[error("the snapshot is from before this boot")]
    OtherBoot,
}

/// The version of the format.
const VERSION: u32 = 3;

/// An older version that is read too. It does not distinguish private teachers from trusted ones.
const BEFORE: u32 = 2;

/// A part ends after so many octets (some fifty names). Making a part locks the ledger for less
/// than a tenth of a millisecond, and a lookup that learns something waits for that.
const PART: usize = 8 * 1024;

/// A snapshot that is being taken: lines of JSON, the first of which says what follows, and then
/// one for each name.
///
/// It is taken in parts, so that the ledger can be used between them. What is learned or ends
/// meanwhile may or may not be in it.
#[derive(Debug)]
pub struct LedgerSnapshot {
    part: Vec<u8>,
    next: usize,
    heading: Option<SnapshotHeading>,
}

impl LedgerSnapshot {
    /// Begins one. `boot_id` is `/proc/sys/kernel/random/boot_id`.
    pub fn new(boot_id: &str) -> Self {
        Self {
            part: Vec::new(),
            next: 0,
            heading: Some(SnapshotHeading {
                version: VERSION,
                boot_id: boot_id.to_owned(),
            }),
        }
    }

    /// The next part of what is live; `None` when there is no more.
    pub fn next_part(&mut self, ledger: &Ledger, now: Time) -> Option<&[u8]> {
        self.part.clear();
        if let Some(heading) = self.heading.take() {
            write_line(&mut self.part, &heading);
        }
        let mut records = ledger.names.slots_from(self.next);
        while self.part.len() < PART
            && let Some(record) = records.next()
        {
            self.next += 1;
            let saved = record.and_then(|record| SavedName::new(ledger, record, now));
            if let Some(saved) = saved {
                write_line(&mut self.part, &saved);
            }
        }
        (!self.part.is_empty()).then_some(&self.part)
    }
}

fn write_line(into: &mut Vec<u8>, line: &impl Serialize) {
    // JSON fails on maps whose keys are not strings and on failing writers; there are neither here.
    serde_json::to_writer(&mut *into, line).expect("a snapshot is plain data");
    into.push(b'\n');
}

impl Ledger {
    /// Adds the leases of a [`LedgerSnapshot`] (its parts, concatenated) that are still live.
    /// Returns how many name–address pairs it added. Hostile bytes give an error and change
    /// nothing; limits hold.
    ///
    /// Of `source`, which is read twice and must not change meanwhile, a line is in memory at a
    /// time: all of it would take as much as the ledger that it becomes.
    ///
    /// What the ledger holds already was learned since: it stays, counts as more recent, and its
    /// leases are not shortened. Where there is no room, the names that were learned last are
    /// restored, and each owner has its share. No restored lease is longer than the present timing
    /// allows.
    pub fn restore(
        &mut self,
        now: Time,
        boot_id: &str,
        source: impl Read + Seek,
    ) -> Result<usize, LedgerSnapshotError> {
        let malformed = |error: serde_json::Error| LedgerSnapshotError::Malformed(error.to_string());
        let mut lines = SnapshotLines::new(source);
        let (_, heading) = lines.next()?.ok_or_else(cut_off)?;
        let SnapshotVersion { version } = serde_json::from_slice(heading).map_err(malformed)?;
        if version != VERSION && version != BEFORE {
            return Err(LedgerSnapshotError::Version(version));
        }
        let heading: SnapshotHeading = serde_json::from_slice(heading).map_err(malformed)?;
        if heading.boot_id != boot_id {
            return Err(LedgerSnapshotError::OtherBoot);
        }
        // Nothing changes before all lines are valid.
        let mut places: Vec<(Option<u64>, LinePlace)> = Vec::new();
        while let Some((place, line)) = lines.next()? {
            let (_, saved) = read_line(line)?;
            places.push((saved.leases.iter().map(|lease| lease.learned).max(), place));
        }
        places.sort_by_key(|(learned, _)| Reverse(*learned));

        let (_, before) = self.size();
        for (_, place) in places {
            let (name, saved) = read_line(lines.again(place)?)?;
            let private = saved.private || version == BEFORE;
            self.restore_name(now, (&name, LeaseOwner(saved.owner)), private, &saved.leases);
            // What was learned longest ago comes last.
            self.evict(now);
        }
        Ok(self.size().1.saturating_sub(before))
    }

    fn restore_name(&mut self, now: Time, (name, owner): (&Name, LeaseOwner), private: bool, leases: &[SavedLease]) {
        let latest_end = now + self.terms.longest();
        let mut leases: Vec<AddressLease> = leases
            .iter()
            .map(|saved| AddressLease {
                address: saved.address,
                teacher: self.teachers.id(match private {
                    true => Teacher::Private(saved.source),
                    false => Teacher::Trusted(saved.source),
                }),
                learned: Time::from_millis(saved.learned).min(now),
                expires: Time::from_millis(saved.expires).min(latest_end),
            })
            .filter(|lease| lease.is_live(now))
            .collect();
        // A private teacher has its leases to itself; before, those of all stood together.
        leases.sort_by_key(|lease| self.teachers.get(lease.teacher));
        for of_record in leases
            .chunk_by(|a, b| self.private(a.teacher) == self.private(b.teacher))
            .map(<[_]>::to_vec)
            .collect::<Vec<_>>()
        {
            let private = of_record.first().and_then(|lease| self.private(lease.teacher));
            let id = match self.names.find(name, private) {
                Some(id) => id,
                None => self.names.add_oldest(name, private, owner),
            };
            self.add_leases(id, of_record);
            self.trim(now, id);
        }
    }
}

/// The lines of a snapshot, one in memory at a time.
struct SnapshotLines<R> {
    reader: BufReader<R>,
    /// Where the next line begins.
    next: u64,
    line: Vec<u8>,
}

/// Where a line is: its first octet, and its length without the end of the line.
#[derive(Clone, Copy)]
struct LinePlace {
    first: u64,
    length: usize,
}

impl<R: Read + Seek> SnapshotLines<R> {
    fn new(source: R) -> Self {
        Self {
            reader: BufReader::new(source),
            next: 0,
            line: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<Option<(LinePlace, &[u8])>, LedgerSnapshotError> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        // Every line ends, the last too.
        if self.line.pop() != Some(b'\n') {
            return Err(cut_off());
        }
        let place = LinePlace {
            first: self.next,
            length: self.line.len(),
        };
        self.next += read as u64;
        Ok(Some((place, &self.line)))
    }

    /// A line that was read before. No [`next`](Self::next) may follow.
    fn again(&mut self, place: LinePlace) -> Result<&[u8], LedgerSnapshotError> {
        // Past the buffer, which would be filled with more than this line each time.
        let source = self.reader.get_mut();
        source.seek(SeekFrom::Start(place.first))?;
        self.line.resize(place.length, 0);
        source.read_exact(&mut self.line)?;
        Ok(&self.line)
    }
}

fn cut_off() -> LedgerSnapshotError {
    LedgerSnapshotError::Malformed("it ends within a line".to_owned())
}

fn read_line(line: &[u8]) -> Result<(Name, SavedName<'_>), LedgerSnapshotError> {
    let saved: SavedName<'_> =
        serde_json::from_slice(line).map_err(|error| LedgerSnapshotError::Malformed(error.to_string()))?;
    match Name::from_presentation(&saved.name) {
        Ok(name) => Ok((name, saved)),
        Err(error) => Err(LedgerSnapshotError::Malformed(format!(
            "the name {:?}: {error}",
            saved.name
        ))),
    }
}

/// Read first, because the rest has the shape of its version.
#[derive(Deserialize)]
struct SnapshotVersion {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct SnapshotHeading {
    version: u32,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct SavedName<'a> {
    /// As [`Name::as_str`] gives it.
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// Whose it is, as [`LeaseOwner`].
    #[serde(default)]
    owner: u32,
    /// Whether the leases are a private teacher's.
    #[serde(default, skip_serializing_if = "is_false")]
    private: bool,
    leases: Vec<SavedLease>,
}

impl<'a> SavedName<'a> {
    /// `None` when nothing of it is live.
    fn new(ledger: &Ledger, record: &'a NameRecord, now: Time) -> Option<Self> {
        let live = record.leases.iter().filter(|lease| lease.is_live(now));
        let leases: Vec<SavedLease> = live
            .map(|lease| SavedLease {
                address: lease.address,
                learned: lease.learned.as_millis(),
                expires: lease.expires.as_millis(),
                source: ledger.teachers.get(lease.teacher).address(),
            })
            .collect();
        (!leases.is_empty()).then(|| Self {
            name: Cow::Borrowed(record.name.as_str()),
            owner: record.owner.0,
            private: record.private.is_some(),
            leases,
        })
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize, Deserialize)]
struct SavedLease {
    address: IpAddr,
    /// Milliseconds since boot, as in [`Time`].
    learned: u64,
    expires: u64,
    source: IpAddr,
}

#[cfg(test)]
mod tests;
