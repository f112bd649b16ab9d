//! Compares the elements of sets with what they should hold.
//!
//! Reading a large set takes the kernel long: it begins anew for each datagram, so that twice the
//! elements take four times as long, a second for 200,000. So sets are read only after somebody
//! else has changed a table, in a limited share of the time, and by a thread of its own, while the
//! writer goes on. What that thread has read is old by the time it is compared. So an element that
//! differs is only suspected, and is read again by itself before it is repaired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, TryRecvError};
use std::time::Duration;

use ahash::HashMap;
use clock::Time;

use crate::audit::Damage;
use crate::audit::elements::{self, ElementRepair, ExpectedElement};
use crate::layout::{Element, ElementKey, SetId};
use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::objects::MapValue;
use crate::netlink::table_snapshot::RawElement;
use crate::ruleset::{self, change};
use crate::writer::element_key::encode_key;
use crate::writer::kernel::{Kernel, NfTables};
use crate::writer::kernel_writer::KernelWriter;
use crate::writer::set_mirror::{Holder, Lifetime, SetMirror};
use crate::writer::table_guard::{BackgroundRead, ReadSet};
use crate::writer::transaction_plan::{LINGER, SHORTEST_LIFE, TICKS};

use super::OtherWriters;

/// How often the writer compares what was read so far.
const POLL: Duration = Duration::from_millis(10);

/// The most suspected elements that are read again before other work: some milliseconds.
const AT_ONCE: usize = 1024;

impl KernelWriter<NfTables> {
    pub(super) fn check_contents(&mut self) {
        let outcome = self.start_reading().and_then(|()| self.compare());
        let outcome = outcome.and_then(|()| self.recheck_suspects());
        let now = clock::now();
        let Some(guard) = &mut self.guard else { return };
        let contents = &mut guard.contents;
        if let Err(error) = outcome {
            tracing::debug!(error, "sets could not be compared; the table is looked at again");
            contents.restart(now);
            contents.is_asked = true;
            guard.suspected = true;
        } else if !contents.suspects.is_empty() {
            guard.next_check = Time::default();
        } else if contents.reading.is_some() {
            guard.next_check = guard.next_check.min(now + POLL);
        }
        if guard.contents.suspects.is_empty() {
            let noticed = guard.contents.noticed.take();
            let repaired = std::mem::take(&mut guard.contents.repaired).into_iter();
            let damage = repaired.filter_map(|(set, (written, deleted))| {
                elements::learned_set_damage(&set.to_string(), written, deleted)
            });
            let damage: Vec<Damage> = damage.collect();
            if !damage.is_empty() {
                self.report_repair(damage, noticed);
            }
        }
    }

    fn start_reading(&mut self) -> Result<(), String> {
        let now = clock::now();
        let (Some(guard), Some(desired)) = (&mut self.guard, &self.installed) else {
            return Ok(());
        };
        let contents = &mut guard.contents;
        let is_idle = contents.reading.is_none() && contents.suspects.is_empty();
        if !is_idle || !contents.is_asked || !contents.share.allows(now) {
            return Ok(());
        }
        contents.is_asked = false;
        let of_table: Vec<String> = ruleset::table_sets::entries(desired)
            .into_iter()
            .map(|(set, _)| set)
            .collect();
        let learned = change::learned_sets(desired);
        let table = self.kernel.table().to_owned();
        let (tell, found) = mpsc::channel();
        let read = move |tell: &Sender<ReadSet>| -> std::io::Result<()> {
            let mut kernel = NfTables::open(&table)?;
            for set in of_table {
                let entries = kernel.entries(&set)?;
                if tell.send(ReadSet::Table(set, entries)).is_err() {
                    return Ok(());
                }
            }
            for set in learned {
                let before = clock::now();
                let holds = kernel.elements(&set)?.into_iter().collect();
                if tell.send(ReadSet::Learned(set, holds, (before, clock::now()))).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("nft-audit".to_owned()).spawn(move || {
            if let Err(error) = read(&tell) {
                // A set or the table was deleted meanwhile, which the next check will find.
                tracing::debug!(%error, "a set could not be read");
            }
            // All that this thread has done. The writer may have ended.
            let _ = tell.send(ReadSet::Ended(clock::thread_cpu_time()));
        });
        thread.map_err(|error| error.to_string())?;
        contents.reading = Some(BackgroundRead { began: now, found });
        Ok(())
    }

    /// Compares what was read so far.
    fn compare(&mut self) -> Result<(), String> {
        loop {
            let Some(guard) = &mut self.guard else { return Ok(()) };
            let contents = &mut guard.contents;
            let Some(reading) = &contents.reading else {
                return Ok(());
            };
            match reading.found.try_recv() {
                Ok(ReadSet::Table(set, holds)) => self.compare_table_set(&set, &holds)?,
                Ok(ReadSet::Learned(set, holds, seen)) => {
                    let suspects = suspects(&self.shared.mirror(), set, &holds, seen);
                    contents.suspects.extend(suspects.into_iter().map(|key| (set, key)));
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Ok(ReadSet::Ended(cost)) => {
                    contents.share.took(clock::now(), cost);
                    contents.reading = None;
                    return Ok(());
                }
                Err(TryRecvError::Disconnected) => {
                    contents.reading = None;
                    return Ok(());
                }
            }
        }
    }

    fn compare_table_set(&mut self, set: &str, holds: &BTreeMap<RawElement, Option<MapValue>>) -> Result<(), String> {
        let Some(desired) = &self.installed else { return Ok(()) };
        let entries = ruleset::table_sets::entries(desired).into_iter();
        let Some((_, should)) = entries.into_iter().find(|(name, _)| name == set) else {
            return Ok(());
        };
        if elements::table_set_damage(set, &should, holds).is_none() {
            return Ok(());
        }
        let noticed = clock::now();
        // What was read may be older than the last installation.
        let holds = self.kernel.entries(set).map_err(|error| error.to_string())?;
        let Some(damage) = elements::table_set_damage(set, &should, &holds) else {
            return Ok(());
        };
        if self.other_writers() == OtherWriters::Newer {
            return Ok(());
        }
        let Some(desired) = &self.installed else { return Ok(()) };
        let commands = ruleset::table_sets::rewritten(desired, set);
        match self.kernel.transact(&commands) {
            Ok(Ok(())) => self.report_repair(vec![damage], Some(noticed)),
            Ok(Err(errors)) => return Err(format!("{set}: {errors:?}")),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Reads some suspected elements again, and repairs those that are wrong.
    fn recheck_suspects(&mut self) -> Result<(), String> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        let suspects = &mut guard.contents.suspects;
        let Some((set, _)) = suspects.front().copied() else {
            return Ok(());
        };
        let count = suspects.iter().take(AT_ONCE).take_while(|(of, _)| *of == set).count();
        let keys: Vec<ElementKey> = suspects.drain(..count).map(|(_, key)| key).collect();
        guard.contents.noticed.get_or_insert(clock::now());
        let mut has_others = None;
        let mut repairs = Vec::new();
        for key in keys {
            let before = clock::now();
            let holds = self.kernel.element(&set, &key).map_err(|error| error.to_string())?;
            let seen = (before, clock::now());
            let element = Element { set, key };
            let expected = expected(&self.shared.mirror(), &element);
            if elements::repair(expected, holds, seen, false).is_none() {
                if holds.is_none() && expected.is_some_and(|expected| expected.is_over(seen.0)) {
                    // Until it is forgotten it counts against the size of its set.
                    self.shared.mirror().remove(&element);
                }
                continue;
            }
            let has_others = *has_others.get_or_insert_with(|| self.other_writers() != OtherWriters::Nobody);
            if let Some(repair) = elements::repair(expected, holds, seen, has_others) {
                repairs.push((key, repair, expected));
            }
        }
        if repairs.is_empty() {
            return Ok(());
        }
        // Elements are missing that were relied on.
        self.shared.begin_epoch();
        self.repair_elements(set, &repairs)
    }

    fn repair_elements(
        &mut self,
        set: SetId,
        repairs: &[(ElementKey, ElementRepair, Option<ExpectedElement>)],
    ) -> Result<(), String> {
        let name: Arc<str> = set.to_string().into();
        let now = clock::now();
        let left = |end: Time| end.since(now).max(SHORTEST_LIFE) + LINGER;
        let mut operations = Vec::new();
        for (key, repair, expected) in repairs {
            let last = match (repair, expected) {
                (ElementRepair::Adopt(_), _) => continue,
                (ElementRepair::Write, Some(ExpectedElement::Permanent)) => Some(ElementAction::AddPermanent),
                (ElementRepair::Write, Some(ExpectedElement::Leased { end, .. })) if *end > now => {
                    Some(ElementAction::Add(left(*end)))
                }
                // An element whose lease is over is only deleted.
                (ElementRepair::Write, Some(ExpectedElement::Leased { .. }) | None) | (ElementRepair::Delete, _) => {
                    None
                }
            };
            // Added first, so that it is there to be deleted.
            let actions = [ElementAction::Add(SHORTEST_LIFE), ElementAction::Delete]
                .into_iter()
                .chain(last);
            operations.extend(actions.map(|action| ElementOp {
                set: Arc::clone(&name),
                key: encode_key(key),
                action,
            }));
        }
        self.kernel.commit(&operations).map_err(|error| format!("{error:?}"))?;
        let acknowledged = clock::now();
        let mut mirror = self.shared.mirror();
        let (mut written, mut deleted) = (0, 0);
        for (key, repair, expected) in repairs {
            let element = Element { set, key: *key };
            match repair {
                ElementRepair::Write => {
                    written += 1;
                    match expected {
                        Some(ExpectedElement::Leased { end, .. }) if *end > now => {
                            let gone = acknowledged + left(*end) + TICKS;
                            let (holder, written) = mirror.origin(&element).unwrap_or((Holder::default(), now));
                            mirror.record(element, Lifetime { end: *end, gone }, holder, written);
                        }
                        Some(ExpectedElement::Leased { .. }) => mirror.remove(&element),
                        Some(ExpectedElement::Permanent) | None => {}
                    }
                }
                ElementRepair::Delete => deleted += 1,
                ElementRepair::Adopt(Some(left)) => {
                    let gone = acknowledged + *left + 2 * TICKS;
                    // The remaining time was read within the last milliseconds, and is longer than
                    // the lease.
                    let end = now + left.saturating_sub(LINGER + 2 * TICKS);
                    mirror.record(element, Lifetime { end, gone }, Holder::default(), now);
                }
                ElementRepair::Adopt(None) => mirror.insert_permanent(element),
            }
        }
        drop(mirror);
        if let Some(guard) = &mut self.guard
            && written + deleted > 0
        {
            let sum = guard.contents.repaired.entry(set).or_default();
            *sum = (sum.0 + written, sum.1 + deleted);
        }
        Ok(())
    }
}

/// What the mirror says of an element.
fn expected(mirror: &SetMirror, element: &Element) -> Option<ExpectedElement> {
    match mirror.lifetime(element) {
        Some(Lifetime { end, gone }) => Some(ExpectedElement::Leased { end, gone }),
        None => mirror.is_permanent(element).then_some(ExpectedElement::Permanent),
    }
}

/// The elements of a learned set that differ from the mirror.
fn suspects(
    mirror: &SetMirror,
    set: SetId,
    holds: &HashMap<ElementKey, Option<Duration>>,
    seen: (Time, Time),
) -> Vec<ElementKey> {
    let Some(held) = mirror.set(&set).map(|set| set.held) else {
        return Vec::new();
    };
    let mut suspects = Vec::new();
    let mut known = 0;
    for (key, left) in holds {
        let expected = expected(mirror, &Element { set, key: *key });
        known += u32::from(expected.is_some());
        if elements::repair(expected, Some(*left), seen, false).is_some() {
            suspects.push(*key);
        }
    }
    if known < held {
        let missing = mirror
            .of_set(set)
            .filter(|(element, _)| !holds.contains_key(&element.key));
        suspects.extend(missing.map(|(element, _)| element.key));
    }
    suspects
}
