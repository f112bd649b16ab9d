//! The ledger as bytes, so that it can leave the process and come back.

use std::borrow::Cow;
use std::cmp::Reverse;
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
    /// What the ledger holds already was learned since: it stays, counts as more recent, and its
    /// leases are not shortened. Where there is no room, the names that were learned last are
    /// restored, and each owner has its share. No restored lease is longer than the present timing
    /// allows.
    pub fn restore(&mut self, now: Time, boot_id: &str, bytes: &[u8]) -> Result<usize, LedgerSnapshotError> {
        let malformed = |error: serde_json::Error| LedgerSnapshotError::Malformed(error.to_string());
        // Every line ends, the last too.
        let cut_off = || LedgerSnapshotError::Malformed("it ends within a line".to_owned());
        let mut lines = bytes
            .strip_suffix(b"\n")
            .ok_or_else(cut_off)?
            .split(|octet| *octet == b'\n');
        let heading = lines.next().unwrap_or_default();
        let SnapshotVersion { version } = serde_json::from_slice(heading).map_err(malformed)?;
        if version != VERSION && version != BEFORE {
            return Err(LedgerSnapshotError::Version(version));
        }
        let heading: SnapshotHeading = serde_json::from_slice(heading).map_err(malformed)?;
        if heading.boot_id != boot_id {
            return Err(LedgerSnapshotError::OtherBoot);
        }
        // Every line is read twice: nothing changes before all are valid, and they are not all in
        // memory at a time.
        let mut places: Vec<(Option<u64>, &[u8])> = Vec::new();
        for line in lines {
            let (_, saved) = read_line(line)?;
            places.push((saved.leases.iter().map(|lease| lease.learned).max(), line));
        }
        places.sort_by_key(|(learned, _)| Reverse(*learned));

        let (_, before) = self.size();
        for (_, line) in places {
            let (name, saved) = read_line(line)?;
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
            self.credit(id, of_record);
            self.trim(now, id);
        }
    }
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
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::{LearnedAnswer, LeaseTiming, LedgerEntry, LedgerLimits};

    use super::*;

    const BOOT: &str = "0f1e2d3c";

    fn at(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    fn limits(names: usize, addresses_per_name: usize) -> LedgerLimits {
        LedgerLimits {
            names: NonZeroUsize::new(names).unwrap(),
            addresses_per_name: NonZeroUsize::new(addresses_per_name).unwrap(),
        }
    }

    fn empty() -> Ledger {
        Ledger::new(LedgerLimits::default(), LeaseTiming::default())
    }

    fn teach(ledger: &mut Ledger, now: Time, name: &str, addresses: &[&str], ttl: u64) {
        ledger.learn(
            now,
            &LearnedAnswer {
                name: Name::parse(name).unwrap(),
                addresses: addresses
                    .iter()
                    .map(|address| (address.parse().unwrap(), Duration::from_secs(ttl)))
                    .collect(),
                teacher: Teacher::Trusted("10.0.0.53".parse().unwrap()),
                owner: LeaseOwner(1),
                terms: None,
            },
        );
        ledger.evict(now);
    }

    fn sample() -> Ledger {
        let mut ledger = empty();
        teach(&mut ledger, at(1), "a.example", &["192.0.2.1", "2001:db8::1"], 60);
        teach(&mut ledger, at(2), "b.example", &["192.0.2.2"], 300);
        teach(&mut ledger, at(3), "gone.example", &["192.0.2.3"], 0);
        ledger
    }

    fn bytes(ledger: &Ledger, now: Time) -> Vec<u8> {
        let (mut snapshot, mut bytes) = (LedgerSnapshot::new(BOOT), Vec::new());
        while let Some(part) = snapshot.next_part(ledger, now) {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Without their order.
    fn lines(bytes: &[u8]) -> BTreeSet<&[u8]> {
        bytes.split(|octet| *octet == b'\n').collect()
    }

    fn entries(ledger: &Ledger, now: Time) -> Vec<LedgerEntry<'_>> {
        ledger.entries(now).collect()
    }

    #[test]
    fn a_snapshot_carries_what_is_live() {
        let ledger = sample();
        let bytes = bytes(&ledger, at(40));
        let mut restored = empty();
        assert_eq!(restored.restore(at(50), BOOT, &bytes).unwrap(), 3);
        assert_eq!(entries(&restored, at(50)), entries(&ledger, at(50)));
        assert_eq!(restored.next_deadline(), Some(at(91)));
    }

    #[test]
    fn a_large_ledger_is_free_between_the_parts_of_its_snapshot() {
        let mut ledger = empty();
        for name in 0..2_000 {
            teach(&mut ledger, at(1), &format!("n{name}.example"), &["192.0.2.1"], 60);
        }
        let (mut snapshot, mut bytes, mut parts) = (LedgerSnapshot::new(BOOT), Vec::new(), 0);
        while let Some(part) = snapshot.next_part(&ledger, at(2)) {
            assert!(part.len() < 2 * PART);
            bytes.extend_from_slice(part);
            parts += 1;
            // Not each time: a part may hold no more than what the last one left, and then there
            // would always be another.
            if parts <= 10 {
                teach(&mut ledger, at(2), &format!("later{parts}.example"), &["192.0.2.2"], 60);
            }
        }
        assert!(parts > 10, "{parts}");
        let mut restored = empty();
        restored.restore(at(3), BOOT, &bytes).unwrap();
        for name in 0..2_000 {
            let name = Name::parse(&format!("n{name}.example")).unwrap();
            assert_eq!(restored.addresses(at(3), &name).count(), 1);
        }
    }

    #[test]
    fn leases_that_ended_in_between_do_not_come_back() {
        let bytes = bytes(&sample(), at(4));
        let mut restored = empty();
        assert_eq!(restored.restore(at(91), BOOT, &bytes).unwrap(), 1);
        assert_eq!(restored.size(), (1, 1));
    }

    #[test]
    fn names_with_octets_that_no_policy_can_write_come_back() {
        let labels: [&[u8]; 2] = [b"a.\\b\"\xff", b"example"];
        let name = Name::from_wire_labels(labels);
        let mut ledger = empty();
        ledger.learn(
            at(0),
            &LearnedAnswer {
                name: name.clone(),
                addresses: vec![("192.0.2.1".parse().unwrap(), Duration::ZERO)].into(),
                teacher: Teacher::Trusted("10.0.0.53".parse().unwrap()),
                owner: LeaseOwner(1),
                terms: None,
            },
        );
        let mut restored = empty();
        restored.restore(at(1), BOOT, &bytes(&ledger, at(1))).unwrap();
        assert_eq!(restored.addresses(at(1), &name).count(), 1);
    }

    #[test]
    fn other_boots_and_other_versions_are_refused() {
        let bytes = bytes(&sample(), at(4));
        let mut ledger = empty();
        assert!(matches!(
            ledger.restore(at(4), "another", &bytes),
            Err(LedgerSnapshotError::OtherBoot)
        ));
        let later = String::from_utf8(bytes)
            .unwrap()
            .replace("\"version\":3", "\"version\":4");
        assert!(matches!(
            ledger.restore(at(4), BOOT, later.as_bytes()),
            Err(LedgerSnapshotError::Version(4))
        ));
        assert!(matches!(
            ledger.restore(at(4), BOOT, b"{\"version\":7,\"names\":{}}\n"),
            Err(LedgerSnapshotError::Version(7))
        ));
        assert_eq!(ledger.size(), (0, 0));
    }

    #[test]
    fn what_private_servers_taught_comes_back_as_theirs() {
        let mut ledger = sample();
        let private = Teacher::Private("203.0.113.53".parse().unwrap());
        ledger.learn(
            at(3),
            &LearnedAnswer {
                name: Name::parse("a.example").unwrap(),
                addresses: vec![("192.0.2.1".parse().unwrap(), Duration::from_secs(3_600))].into(),
                teacher: private,
                owner: LeaseOwner(1),
                terms: None,
            },
        );
        let mut restored = empty();
        restored.restore(at(4), BOOT, &bytes(&ledger, at(4))).unwrap();
        assert_eq!(entries(&restored, at(4)), entries(&ledger, at(4)));
        assert_eq!(entries(&restored, at(4))[2].teacher, private);
    }

    #[test]
    fn the_version_before_is_read_and_what_it_holds_is_nobodys_but_each_teachers() {
        let before = format!(
            "{{\"version\":2,\"boot_id\":\"{BOOT}\"}}\n{{\"name\":\"a.example.\",\"leases\":[\
             {{\"address\":\"192.0.2.1\",\"learned\":1000,\"expires\":90000,\"source\":\"10.0.0.53\"}},\
             {{\"address\":\"192.0.2.2\",\"learned\":1000,\"expires\":90000,\"source\":\"10.0.0.54\"}},\
             {{\"address\":\"192.0.2.3\",\"learned\":1000,\"expires\":90000,\"source\":\"10.0.0.53\"}}]}}\n"
        );
        let mut ledger = empty();
        assert_eq!(ledger.restore(at(5), BOOT, before.as_bytes()).unwrap(), 3);
        let held = entries(&ledger, at(5));
        let of = |last: u8| {
            held.iter()
                .filter(move |entry| entry.teacher == Teacher::Private([10, 0, 0, last].into()))
        };
        assert_eq!((of(53).count(), of(54).count()), (2, 1));
    }

    #[test]
    fn a_malformed_snapshot_changes_nothing() {
        let good = String::from_utf8(bytes(&sample(), at(4))).unwrap();
        let mut ledger = empty();
        for bad in [
            String::new(),
            "null".to_owned(),
            "[".repeat(10_000),
            good.replace("b.example.", "b..example."),
            good.replace("b.example.", "\\\\999.example."),
            good.replace("192.0.2.2", "192.0.2.256"),
            good.replace("\"leases\"", "\"laeses\""),
            good[..good.len() - 1].to_owned(),
            good.clone() + "x",
        ] {
            assert!(
                matches!(
                    ledger.restore(at(4), BOOT, bad.as_bytes()),
                    Err(LedgerSnapshotError::Malformed(_))
                ),
                "{bad:.80}"
            );
            assert_eq!(ledger.size(), (0, 0));
        }
    }

    #[test]
    fn the_limits_hold_and_the_names_learned_last_come_back() {
        let mut ledger = empty();
        for (second, name) in ["a.example", "b.example", "c.example", "a.example"]
            .into_iter()
            .enumerate()
        {
            teach(
                &mut ledger,
                at(second as u64),
                name,
                &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
                300,
            );
        }
        let mut small = Ledger::new(limits(2, 2), LeaseTiming::default());
        assert_eq!(small.restore(at(4), BOOT, &bytes(&ledger, at(4))).unwrap(), 4);
        let names: Vec<String> = small.entries(at(4)).map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["a.example", "a.example", "c.example", "c.example"]);
        // And their order came back: the next name takes the place of c.
        teach(&mut small, at(5), "d.example", &["192.0.2.9"], 300);
        assert_eq!(small.addresses(at(5), &Name::parse("c.example").unwrap()).count(), 0);
    }

    #[test]
    fn what_is_held_already_stays_and_is_not_shortened() {
        let bytes = bytes(&sample(), at(4));
        let mut ledger = Ledger::new(limits(2, 10), LeaseTiming::default());
        teach(&mut ledger, at(10), "z.example", &["192.0.2.99"], 60);
        teach(&mut ledger, at(11), "b.example", &["192.0.2.2"], 3_600);
        assert_eq!(ledger.restore(at(12), BOOT, &bytes).unwrap(), 0);
        let held = entries(&ledger, at(12));
        assert_eq!(held.len(), 2);
        assert_eq!((held[0].learned, held[0].expires), (at(11), at(11 + 3_600 + 30)));
    }

    #[test]
    fn no_lease_comes_back_longer_than_the_terms_allow() {
        let forged = format!(
            "{{\"version\":2,\"boot_id\":\"{BOOT}\"}}\n{{\"name\":\"a.example.\",\"leases\":[\
             {{\"address\":\"192.0.2.1\",\"learned\":{max},\"expires\":{max},\"source\":\"::1\"}}]}}\n",
            max = u64::MAX
        );
        let mut ledger = empty();
        assert_eq!(ledger.restore(at(5), BOOT, forged.as_bytes()).unwrap(), 1);
        let held = entries(&ledger, at(5));
        assert_eq!((held[0].learned, held[0].expires), (at(5), at(5 + 86_400 + 30)));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = empty().restore(at(5), BOOT, &bytes);
        }

        #[test]
        fn a_damaged_snapshot_gives_a_result_within_the_limits(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = bytes(&sample(), at(4));
            for (place, octet) in damage {
                let place = place.index(bytes.len());
                bytes[place] = octet;
            }
            let mut ledger = Ledger::new(limits(1, 1), LeaseTiming::default());
            let _ = ledger.restore(at(5), BOOT, &bytes);
            prop_assert!(ledger.size() <= (1, 1));
            prop_assert_eq!(ledger.size().1, ledger.entries(at(5)).count());
        }

        #[test]
        fn any_ledger_comes_back_as_it_was(
            taught in prop::collection::vec((0..30_u8, 0..6_u8, 0..400_u64), 0..40),
            pause in 0..500_u64,
        ) {
            let mut ledger = empty();
            for (second, (name, host, ttl)) in taught.into_iter().enumerate() {
                teach(&mut ledger, at(second as u64), &format!("n{name}.example"), &[&format!("192.0.2.{host}")], ttl);
            }
            let saved = at(40);
            let now = saved + Duration::from_secs(pause);
            let mut restored = empty();
            restored.restore(now, BOOT, &bytes(&ledger, saved)).unwrap();
            prop_assert_eq!(entries(&restored, now), entries(&ledger, now));
            ledger.expire(now);
            prop_assert_eq!(restored.next_deadline(), ledger.next_deadline());
            let (again, once) = (bytes(&restored, now), bytes(&ledger, now));
            prop_assert_eq!(lines(&again), lines(&once));
        }
    }
}
