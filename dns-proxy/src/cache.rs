//! The answer cache (RFC 1035 §7.4, RFC 2308). Expired answers are given for a while when no
//! upstream answers (RFC 8767).
//!
//! Pure: time is an argument. A cached answer goes the way of every answer: its question was
//! screened before, and it is validated, admitted and released against a proof. So the cache never
//! answers what policy denies, and never with an address that the kernel does not hold.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use names::Name;
use smallvec::SmallVec;

use crate::client_query::Query;
use crate::wire_format::{HEADER, Header, IN, Malformed, MessageReader, read_question, rtype};

/// RFC 2308 §5: values of one to three hours work well, more than a day is a problem.
const LONGEST_NEGATIVE: u32 = 3 * 3_600;

/// RFC 2181 §8 allows a cap; a day, as the leases have by default.
const LONGEST: u32 = 86_400;

/// The TTL of an expired answer (RFC 8767 §4).
const STALE_TTL: u32 = 30;

/// How long an expired answer is given without asking upstreams again, after they failed (RFC 8767
/// §5).
const RECHECK: Duration = Duration::from_secs(30);

/// Larger answers are rare and not cached, so that the number of entries bounds the memory.
const LARGEST: usize = 4_096;

/// After so many hits since it was stored, an answer counts as popular.
const HOT: u32 = 2;

/// NOERROR and NXDOMAIN. All other codes tell of a server or of a moment, not of the name.
const KEPT_CODES: [u8; 2] = [0, 3];

/// The cache of one worker.
#[derive(Debug)]
pub(crate) struct AnswerCache {
    entries: LruCache<CacheKey, CacheEntry>,
    /// How long after it expired an answer may still be given.
    stale_for: Duration,
}

/// The key of an answer: the question, and everything else in a plain query that the answer may
/// depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    upstream: SocketAddr,
    name: Name,
    qtype: u16,
    /// RD, AD and CD.
    flags: u16,
    /// Whether OPT was sent, and DO in it.
    edns: Option<bool>,
}

#[derive(Debug)]
struct CacheEntry {
    answer: Box<[u8]>,
    /// The positions of its TTLs.
    ttls: SmallVec<[u16; 6]>,
    stored: Instant,
    /// The smallest TTL, or the negative TTL of RFC 2308.
    life: u32,
    hits: u32,
    /// Whether it is being asked for again.
    refresh: RefreshState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefreshState {
    Idle,
    Requested,
    Failed(Instant),
}

/// The result of a look into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheLookup {
    /// There is no answer that can be used.
    Miss,
    /// The answer, which was written to the buffer.
    Fresh {
        /// It is popular and about to expire: ask again before anybody waits for it.
        refresh: bool,
    },
    /// An expired answer, for when no upstream has one.
    Stale,
}

impl AnswerCache {
    pub(crate) fn new(entries: NonZeroUsize, stale_for: Duration) -> Self {
        // Not `LruCache::new`, which takes all its memory at once.
        let mut kept = LruCache::unbounded();
        kept.resize(entries);
        Self {
            entries: kept,
            stale_for,
        }
    }

    /// Looks for the answer, and writes it as it is to be given now.
    pub(crate) fn find(&mut self, now: Instant, key: &CacheKey, query: &Query<'_>, room: &mut Vec<u8>) -> CacheLookup {
        let Some(entry) = self.entries.get_mut(key) else {
            return CacheLookup::Miss;
        };
        let age = now.saturating_duration_since(entry.stored);
        let life = Duration::from_secs(u64::from(entry.life));
        if age < life {
            entry.hits = entry.hits.saturating_add(1);
            // The last tenth of its life.
            let refresh = entry.hits >= HOT && entry.refresh == RefreshState::Idle && age * 10 >= life * 9;
            if refresh {
                entry.refresh = RefreshState::Requested;
            }
            // Less than a day, so it fits.
            entry.write(query, |ttl| ttl.saturating_sub(age.as_secs() as u32), room);
            return CacheLookup::Fresh { refresh };
        }
        if age >= life + self.stale_for {
            self.entries.pop(key);
            return CacheLookup::Miss;
        }
        match entry.refresh {
            RefreshState::Failed(at) if now.saturating_duration_since(at) < RECHECK => {
                entry.write(query, |_| STALE_TTL, room);
                CacheLookup::Fresh { refresh: false }
            }
            _ => CacheLookup::Stale,
        }
    }

    /// No upstream has answered: whether there is an answer past its time, which is written then.
    pub(crate) fn find_stale(&mut self, now: Instant, key: &CacheKey, query: &Query<'_>, room: &mut Vec<u8>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        entry.refresh = RefreshState::Failed(now);
        entry.write(query, |_| STALE_TTL, room);
        true
    }

    /// A refresh has failed.
    pub(crate) fn not_refreshed(&mut self, now: Instant, key: &CacheKey) {
        if let Some(entry) = self.entries.peek_mut(key) {
            entry.refresh = RefreshState::Failed(now);
        }
    }

    /// Keeps an answer that was validated, if it may be kept.
    pub(crate) fn keep(&mut self, now: Instant, key: CacheKey, answer: &[u8]) {
        if let Some(entry) = CacheEntry::new(now, answer) {
            self.entries.put(key, entry);
        }
    }
}

impl CacheKey {
    /// `None`: its answer depends on more than the key says.
    pub(crate) fn of(query: &Query<'_>, upstream: SocketAddr) -> Option<Self> {
        let question = query.question();
        let flags = query.header().flags & (Header::RD | Header::AD | Header::CD);
        if question.qclass != IN || flags & Header::RD == 0 || query.has_options() {
            return None;
        }
        Some(Self {
            upstream,
            name: question.name.clone(),
            qtype: question.qtype,
            flags,
            edns: query.edns().map(|edns| edns.dnssec_ok),
        })
    }
}

impl CacheEntry {
    fn new(now: Instant, answer: &[u8]) -> Option<Self> {
        let header = Header::read(answer).ok()?;
        let keep = answer.len() <= LARGEST && KEPT_CODES.contains(&header.rcode()) && !header.has(Header::TC);
        let (ttls, life) = keep.then(|| read_ttls(answer, &header).ok()).flatten()?;
        (life > 0).then(|| Self {
            answer: answer.into(),
            ttls,
            stored: now,
            life,
            hits: 0,
            refresh: RefreshState::Idle,
        })
    }

    /// The answer to `query`, with its question as it spells it.
    fn write(&self, query: &Query<'_>, ttl: impl Fn(u32) -> u32, room: &mut Vec<u8>) {
        room.clear();
        room.extend_from_slice(&self.answer);
        room[..2].copy_from_slice(&query.header().id.to_be_bytes());
        let question = query.question_section();
        // Equal names have equal lengths.
        if let Some(place) = room.get_mut(HEADER..HEADER + question.len()) {
            place.copy_from_slice(question);
        }
        for &at in &self.ttls {
            if let Some(place) = room.get_mut(usize::from(at)..usize::from(at) + 4)
                && let Ok(octets) = <[u8; 4]>::try_from(&*place)
            {
                place.copy_from_slice(&ttl(u32::from_be_bytes(octets)).to_be_bytes());
            }
        }
    }
}

/// Where TTLs stand, and for how many seconds the answer may be kept.
fn read_ttls(answer: &[u8], header: &Header) -> Result<(SmallVec<[u16; 6]>, u32), Malformed> {
    let (question, answers_at) = read_question(answer, header)?;
    let mut reader = MessageReader::at(answer, answers_at);
    let mut places = SmallVec::new();
    let (mut life, mut negative, mut answered) = (LONGEST, None, false);
    let records = u32::from(header.answers) + u32::from(header.authorities) + u32::from(header.additionals);
    for index in 0..records {
        let record = reader.record()?;
        if record.rtype == rtype::OPT {
            continue;
        }
        let in_answer = index < u32::from(header.answers);
        answered |= in_answer && (record.rtype == question.qtype || question.qtype == rtype::ANY);
        if record.rtype == rtype::SOA && !in_answer {
            // RFC 2308 §5: the smaller of its TTL and its last field, MINIMUM.
            let minimum = record.data.last_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
            negative = Some(minimum.min(seconds(record.ttl)));
        }
        places.push(record.ttl_at());
        life = life.min(seconds(record.ttl));
    }
    let life = match (header.rcode(), answered) {
        (0, true) => life,
        // Without SOA it is not to be kept.
        _ => life.min(negative.unwrap_or(0)).min(LONGEST_NEGATIVE),
    };
    Ok((places, life))
}

/// A TTL with the highest bit set counts as zero (RFC 2181 §8).
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::rdata::SOA;
    use hickory_proto::rr::{Name as WireName, RData, Record};
    use proptest::prelude::*;

    use super::*;
    use crate::packets;

    const UPSTREAM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 53);

    struct CacheBench {
        cache: AnswerCache,
        start: Instant,
    }

    impl CacheBench {
        fn new() -> Self {
            Self {
                cache: AnswerCache::new(NonZeroUsize::new(2).unwrap(), Duration::from_secs(1_000)),
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn keep(&mut self, seconds: u64, query: &[u8], answer: &[u8]) {
            let key = CacheKey::of(&Query::read(query).unwrap(), UPSTREAM).unwrap();
            self.cache.keep(self.at(seconds), key, answer);
        }

        fn find(&mut self, seconds: u64, query: &[u8]) -> (CacheLookup, Vec<u8>) {
            let query = Query::read(query).unwrap();
            let (key, mut room) = (CacheKey::of(&query, UPSTREAM).unwrap(), Vec::new());
            let found = self.cache.find(self.at(seconds), &key, &query, &mut room);
            (found, room)
        }
    }

    const FRESH: CacheLookup = CacheLookup::Fresh { refresh: false };

    fn ttls(answer: &[u8]) -> Vec<u32> {
        let message = Message::from_vec(answer).unwrap();
        message
            .answers
            .iter()
            .chain(&message.authorities)
            .map(|it| it.ttl)
            .collect()
    }

    fn negative(query: &[u8], rcode: u8, ttl: u32, minimum: u32) -> Vec<u8> {
        let mut message = Message::from_vec(&packets::answer_with_rcode(query, rcode)).unwrap();
        let name = || WireName::from_ascii("example.").unwrap();
        let soa = SOA::new(name(), name(), 1, 3_600, 600, 86_400, minimum);
        message.add_authority(Record::from_rdata(name(), ttl, RData::SOA(soa)));
        message.to_vec().unwrap()
    }

    #[test]
    fn an_answer_is_given_with_the_time_that_is_left_and_the_question_as_it_was_asked() {
        let mut bench = CacheBench::new();
        let query = packets::query("a.example.", "A");
        let records = ["a.example. 60 CNAME b.example.", "b.example. 300 A 192.0.2.1"];
        bench.keep(0, &query, &packets::answer(&query, &records));
        let mut again = packets::query("A.eXample.", "A");
        again[..2].copy_from_slice(&[7, 7]);
        let (found, answer) = bench.find(10, &again);
        assert_eq!(found, FRESH);
        assert_eq!(ttls(&answer), [50, 290]);
        assert_eq!(answer[..2], [7, 7]);
        assert_eq!(answer[12..again.len()], again[12..]);
        assert_eq!(bench.find(60, &query).0, CacheLookup::Stale);
        assert_eq!(bench.find(1_060, &query).0, CacheLookup::Miss);
    }

    #[test]
    fn another_type_upstream_or_flag_is_another_question() {
        let mut bench = CacheBench::new();
        let query = packets::query("a.example.", "A");
        bench.keep(0, &query, &packets::answer(&query, &["a.example. 60 A 192.0.2.1"]));
        let mut checking_disabled = query.clone();
        checking_disabled[3] |= 0x10;
        let others = [
            packets::query("a.example.", "AAAA"),
            packets::query("b.example.", "A"),
            packets::query_with_edns("a.example.", "A", 1_232),
            checking_disabled,
        ];
        for other in others {
            assert_eq!(bench.find(1, &other).0, CacheLookup::Miss);
        }
        let query = Query::read(&query).unwrap();
        let elsewhere = CacheKey::of(&query, SocketAddr::from(([192, 0, 2, 53], 53))).unwrap();
        let found = bench.cache.find(bench.at(1), &elsewhere, &query, &mut Vec::new());
        assert_eq!(found, CacheLookup::Miss);
    }

    #[test]
    fn what_has_options_or_no_recursion_is_not_kept() {
        let mut options = packets::query("a.example.", "A");
        options[11] = 1;
        options.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 6, 0xfd, 0xe9, 0, 2, 0xab, 0xcd]);
        assert_eq!(CacheKey::of(&Query::read(&options).unwrap(), UPSTREAM), None);
        let mut iterative = packets::query("a.example.", "A");
        iterative[2] = 0;
        assert_eq!(CacheKey::of(&Query::read(&iterative).unwrap(), UPSTREAM), None);
    }

    #[test]
    fn a_negative_answer_is_kept_as_long_as_its_soa_says_and_not_without() {
        for rcode in [0, 3] {
            let mut bench = CacheBench::new();
            let query = packets::query("a.example.", "A");
            bench.keep(0, &query, &negative(&query, rcode, 300, 20));
            let (found, answer) = bench.find(19, &query);
            assert_eq!((found, ttls(&answer)), (FRESH, vec![281]));
            assert_eq!(bench.find(20, &query).0, CacheLookup::Stale);

            let mut bench = CacheBench::new();
            bench.keep(0, &query, &packets::answer_with_rcode(&query, rcode));
            assert_eq!(bench.find(0, &query).0, CacheLookup::Miss);
        }
    }

    #[test]
    fn failures_truncated_answers_and_ttls_of_zero_are_not_kept() {
        let query = packets::query("a.example.", "A");
        let answer = |ttl| packets::answer(&query, &[&format!("a.example. {ttl} A 192.0.2.1")]);
        let mut truncated = answer(60);
        truncated[2] |= 2;
        for answer in [packets::answer_with_rcode(&query, 2), truncated, answer(0)] {
            let mut bench = CacheBench::new();
            bench.keep(0, &query, &answer);
            assert_eq!(bench.find(0, &query).0, CacheLookup::Miss);
        }
    }

    #[test]
    fn a_hot_name_is_refreshed_once_before_its_end() {
        let mut bench = CacheBench::new();
        let query = packets::query("a.example.", "A");
        bench.keep(0, &query, &packets::answer(&query, &["a.example. 100 A 192.0.2.1"]));
        assert_eq!(bench.find(95, &query).0, FRESH, "asked once");
        assert_eq!(bench.find(96, &query).0, CacheLookup::Fresh { refresh: true });
        assert_eq!(bench.find(97, &query).0, FRESH, "on its way");
        bench.keep(98, &query, &packets::answer(&query, &["a.example. 100 A 192.0.2.2"]));
        assert_eq!(bench.find(120, &query).0, FRESH);
    }

    #[test]
    fn when_no_upstream_answers_the_last_answer_is_given_for_a_while_without_asking_again() {
        let mut bench = CacheBench::new();
        let packet = packets::query("a.example.", "A");
        bench.keep(0, &packet, &packets::answer(&packet, &["a.example. 10 A 192.0.2.1"]));
        assert_eq!(bench.find(20, &packet).0, CacheLookup::Stale);
        let query = Query::read(&packet).unwrap();
        let (key, mut room) = (CacheKey::of(&query, UPSTREAM).unwrap(), Vec::new());
        let now = bench.at(20);
        assert!(bench.cache.find_stale(now, &key, &query, &mut room));
        assert_eq!(ttls(&room), [STALE_TTL]);
        let (found, answer) = bench.find(49, &packet);
        assert_eq!((found, ttls(&answer)), (FRESH, vec![STALE_TTL]));
        assert_eq!(bench.find(50, &packet).0, CacheLookup::Stale, "time to ask again");
    }

    #[test]
    fn the_least_recently_asked_goes_first() {
        let mut bench = CacheBench::new();
        let query = |name| packets::query(name, "A");
        for name in ["a.example.", "b.example."] {
            bench.keep(
                0,
                &query(name),
                &packets::answer(&query(name), &[&format!("{name} 60 A 192.0.2.1")]),
            );
        }
        bench.find(1, &query("a.example."));
        bench.keep(
            1,
            &query("c.example."),
            &packets::answer(&query("c.example."), &["c.example. 60 A 192.0.2.1"]),
        );
        assert_eq!(bench.find(1, &query("a.example.")).0, FRESH);
        assert_eq!(bench.find(1, &query("b.example.")).0, CacheLookup::Miss);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            counts in any::<[u8; 3]>(),
            noise in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), Just(12), Just(0), Just(6)], 0..300),
        ) {
            let mut bench = CacheBench::new();
            let query = packets::query("a.example.", "A");
            let mut answer = packets::answer(&query, &[]);
            answer[7] = counts[0] % 4;
            answer[9] = counts[1] % 4;
            answer[11] = counts[2] % 4;
            answer.extend(noise);
            bench.keep(0, &query, &answer);
            bench.find(1, &query);
        }
    }
}
