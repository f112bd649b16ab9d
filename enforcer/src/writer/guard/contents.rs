//! What sets hold.
//!
//! To read a set of a hundred thousand elements takes the kernel some 40 ms. So it is done only after somebody else has changed a table, set by set,
//! with the writer's other work in between, and where that happens all the time it takes no more than a share of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fqdn_cache::Time;

use super::{AT_ONCE, Company};
use crate::audit::Damage;
use crate::audit::elements::{self, Believed, Mend};
use crate::audit::schedule::Share;
use crate::layout::{Element, ElementKey, SetId};
use crate::netlink::batch::{Operation, Verb};
use crate::netlink::objects::Value;
use crate::netlink::structure::Entry;
use crate::ruleset::{self, change};
use crate::writer::book::{Holder, Life};
use crate::writer::clock;
use crate::writer::kernel::{Kernel, NfTables};
use crate::writer::plan::{LINGER, SHORTEST_LIFE, TICKS, encode_key};
use crate::writer::thread::Writer;

/// Looking takes one part in so many of the time.
const SHARE: u32 = 50;

/// After so long the writer does what else waits.
const TURN: Duration = Duration::from_millis(5);

/// The sets that are still to be looked at.
#[derive(Debug)]
pub(super) struct Contents {
    is_asked: bool,
    waiting: VecDeque<Waiting>,
    share: Share,
    /// What the look that is under way took so far.
    spent: Duration,
}

#[derive(Debug)]
enum Waiting {
    /// A set of the whole table, and what it should hold.
    Table(String, BTreeMap<Entry, Option<Value>>),
    Learned(SetId),
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            is_asked: false,
            waiting: VecDeque::new(),
            share: Share::one_in(SHARE),
            spent: Duration::ZERO,
        }
    }
}

impl Contents {
    /// All sets are to be looked at.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// What they should hold has changed.
    pub(super) fn begin_anew(&mut self) {
        if !self.waiting.is_empty() {
            self.waiting.clear();
            self.is_asked = true;
        }
    }
}

impl Writer<NfTables> {
    pub(super) fn look_at_contents(&mut self) {
        let began = clock::now();
        let (Some(guard), Some(desired)) = (&mut self.guard, &self.installed) else {
            return;
        };
        let contents = &mut guard.contents;
        if contents.waiting.is_empty() {
            if !contents.is_asked || !contents.share.allows(began) {
                return;
            }
            contents.is_asked = false;
            contents.spent = Duration::ZERO;
            let of_table = ruleset::sets::entries(desired).into_iter();
            let of_table = of_table.map(|(set, entries)| Waiting::Table(set, entries));
            let learned = change::learned_sets(desired).into_iter().map(Waiting::Learned);
            contents.waiting = of_table.chain(learned).collect();
        }
        let mut damage = Vec::new();
        let outcome = loop {
            let Some(guard) = &mut self.guard else { return };
            let Some(next) = guard.contents.waiting.pop_front() else {
                break Ok(());
            };
            match self.look_into(next) {
                Ok(found) => damage.extend(found),
                Err(error) => break Err(error),
            }
            if clock::now().since(began) > TURN {
                break Ok(());
            }
        };
        if !damage.is_empty() {
            self.tell_repair(damage, Some(began));
        }
        let now = clock::now();
        let Some(guard) = &mut self.guard else { return };
        guard.contents.spent += now.since(began);
        if let Err(error) = outcome {
            tracing::debug!(%error, "sets could not be compared; the table is looked at again");
            guard.contents.begin_anew();
            guard.contents.is_asked = true;
            guard.suspected = true;
        }
        if guard.contents.waiting.is_empty() {
            let spent = guard.contents.spent;
            guard.contents.share.took(now, now + spent);
        } else {
            guard.next_look = Time::default();
        }
    }

    /// Looks into one set and mends it; returns what was the matter.
    fn look_into(&mut self, set: Waiting) -> Result<Option<Damage>, String> {
        match set {
            Waiting::Table(set, should) => self.look_into_table_set(&set, &should),
            Waiting::Learned(set) => self.look_into_learned(set),
        }
    }

    fn look_into_table_set(
        &mut self,
        set: &str,
        should: &BTreeMap<Entry, Option<Value>>,
    ) -> Result<Option<Damage>, String> {
        let holds = self.kernel.entries(set).map_err(|error| error.to_string())?;
        let Some(damage) = elements::of_table_set(set, should, &holds) else {
            return Ok(None);
        };
        if self.company() == Company::Newer {
            return Ok(None);
        }
        let Some(desired) = &self.installed else {
            return Ok(None);
        };
        let commands = ruleset::sets::rewritten(desired, set);
        match self.kernel.transact(&commands) {
            Ok(Ok(())) => Ok(Some(damage)),
            Ok(Err(objections)) => Err(format!("{set}: {objections:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn look_into_learned(&mut self, set: SetId) -> Result<Option<Damage>, String> {
        let Some(held) = self.shared.book().set(&set).map(|set| set.held) else {
            return Ok(None);
        };
        let now = clock::now();
        let holds = self.kernel.elements(&set).map_err(|error| error.to_string())?;
        let holds: BTreeMap<ElementKey, Option<Duration>> = holds.into_iter().collect();
        let believed = self.believed(set, held, &holds);
        let mut mends = elements::of_learned_set(&believed, &holds, now, false);
        if mends.is_empty() {
            return Ok(None);
        }
        if self.company() != Company::Nobody {
            mends = elements::of_learned_set(&believed, &holds, now, true);
        }
        // Some are missing that were relied on.
        self.shared.begin_epoch();
        self.mend(set, &mends, &believed, now)?;
        Ok(elements::damage(&set.to_string(), &mends))
    }

    /// What the book says of these elements, and of all others of the set if there must be some.
    fn believed(
        &self,
        set: SetId,
        held: u32,
        holds: &BTreeMap<ElementKey, Option<Duration>>,
    ) -> BTreeMap<ElementKey, Believed> {
        let book = self.shared.book();
        let leased = |life: Life| Believed::Leased {
            end: life.end,
            gone: life.gone,
        };
        let known = holds.keys().filter_map(|key| {
            let element = Element { set, key: *key };
            let believed = match book.life(&element) {
                Some(life) => leased(life),
                None if book.keeps(&element) => Believed::Kept,
                None => return None,
            };
            Some((*key, believed))
        });
        let known: BTreeMap<_, _> = known.collect();
        if known.len() >= usize::try_from(held).unwrap_or(usize::MAX) {
            return known;
        }
        let all = book.of_set(set);
        all.map(|(element, life)| (element.key, life.map_or(Believed::Kept, leased)))
            .collect()
    }

    fn mend(
        &mut self,
        set: SetId,
        mends: &[(ElementKey, Mend)],
        believed: &BTreeMap<ElementKey, Believed>,
        seen: Time,
    ) -> Result<(), String> {
        let name: Arc<str> = set.to_string().into();
        for some in mends.chunks(AT_ONCE) {
            let now = clock::now();
            let mut operations = Vec::new();
            for (key, mend) in some {
                let last = match (mend, believed.get(key)) {
                    (Mend::Write, Some(Believed::Kept)) => Some(Verb::Keep),
                    (Mend::Write, Some(Believed::Leased { end, .. })) => {
                        Some(Verb::Add(end.since(now).max(SHORTEST_LIFE) + LINGER))
                    }
                    (Mend::Write, None) | (Mend::Delete, _) => None,
                    (Mend::Adopt(_), _) => continue,
                };
                // Added first, so that it is there to be deleted.
                let verbs = [Verb::Add(SHORTEST_LIFE), Verb::Delete].into_iter().chain(last);
                operations.extend(verbs.map(|verb| Operation {
                    set: Arc::clone(&name),
                    key: encode_key(key),
                    verb,
                }));
            }
            self.kernel.commit(&operations).map_err(|error| format!("{error:?}"))?;
            let acknowledged = clock::now();
            let mut book = self.shared.book();
            for (key, mend) in some {
                let element = Element { set, key: *key };
                match (mend, believed.get(key)) {
                    (Mend::Write, Some(Believed::Leased { end, .. })) => {
                        let left = end.since(now).max(SHORTEST_LIFE) + LINGER;
                        let gone = acknowledged + left + TICKS;
                        let holder = book.origin(&element).map(|(holder, _)| holder).unwrap_or_default();
                        book.record(element, Life { end: *end, gone }, holder, now);
                    }
                    (Mend::Adopt(Some(left)), _) => {
                        let gone = acknowledged + *left + 2 * TICKS;
                        // It is longer there than its lease.
                        let end = seen + left.saturating_sub(LINGER + TICKS);
                        book.record(element, Life { end, gone }, Holder::default(), now);
                    }
                    (Mend::Adopt(None), _) => book.keep(element),
                    (Mend::Write | Mend::Delete, _) => {}
                }
            }
        }
        Ok(())
    }
}
