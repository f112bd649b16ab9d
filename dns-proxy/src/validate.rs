//! What does an answer teach, and may it be believed?
//!
//! Pure: the bytes of the query and the bytes of the answer go in, a [`Lesson`] or the reason against it comes out.
//! That the answer belongs to the question (id, question, sender) was checked before it came here.
//!
//! Only the answer section teaches. Whatever a server adds in the sections behind it opens nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smallvec::SmallVec;
use thiserror::Error;

use crate::gate::Lesson;
use crate::message::{Query, read_question};
use crate::wire::{Header, IN, Malformed, Reader, Record, WireName, rtype};

/// How many CNAMEs an answer may hold. Public resolvers stop between 8 (Unbound) and 16 (BIND).
const MAX_CHAIN: usize = 16;

/// NOERROR, the only code under which addresses are to be used.
const NOERROR: u8 = 0;

/// SVCB and HTTPS keys (RFC 9460 §14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// Why an answer is not believed. It is never released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Bogus {
    #[error("the answer cannot be read")]
    Malformed,
    #[error("broken chain: the answer holds a record that does not hang on the name asked")]
    BrokenChain,
    #[error("broken chain: the aliases lead in a circle")]
    Circle,
    #[error("broken chain: a name has two different aliases")]
    TwoAliases,
    #[error("broken chain: more than {MAX_CHAIN} aliases")]
    TooLong,
}

impl From<Malformed> for Bogus {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads an answer to `query` that came from `source`.
pub(crate) fn validate(query: &Query, answer: &[u8], source: SocketAddr) -> Result<Lesson, Bogus> {
    let header = Header::read(answer)?;
    let (question, answers_at) = read_question(answer, &header)?;
    let mut lesson = Lesson {
        name: query.question().name.clone(),
        chain: Vec::new(),
        addresses: Vec::new(),
        source,
    };
    // Other classes (CHAOS, for a server's version) hold no Internet addresses.
    if query.question().qclass != IN {
        return Ok(lesson);
    }
    let records = || answer_records(answer, answers_at, header.answers);

    let chain = follow(question.name, records())?;
    lesson.chain = chain.targets.iter().map(|target| target.to_name()).collect();
    for record in records() {
        let record = record?;
        if !teaches(&record) {
            continue;
        }
        if record.class != IN || !record.owner.same_as(chain.last) {
            return Err(Bogus::BrokenChain);
        }
        if header.rcode() == NOERROR {
            let ttl = ttl(&record).min(chain.ttl);
            read_addresses(&record, |address| lesson.addresses.push((address, ttl)))?;
        }
    }
    // One entry an address, with its smallest TTL (RFC 2181 §5.2), in an order that does not depend on the server.
    lesson.addresses.sort_unstable();
    lesson.addresses.dedup_by_key(|(address, _)| *address);
    Ok(lesson)
}

/// The aliases of an answer, all of them on one way from the name asked.
struct Chain<'m> {
    targets: SmallVec<[WireName<'m>; 4]>,
    /// Where the way ends: the owner that addresses must have.
    last: WireName<'m>,
    /// The smallest TTL on the way.
    ttl: Duration,
}

/// Follows the CNAMEs from `start`, in whatever order they stand.
fn follow<'m>(
    start: WireName<'m>,
    records: impl Iterator<Item = Result<Record<'m>, Malformed>>,
) -> Result<Chain<'m>, Bogus> {
    let mut aliases: SmallVec<[Alias<'m>; 4]> = SmallVec::new();
    for record in records {
        let record = record?;
        if record.rtype != rtype::CNAME {
            continue;
        }
        if record.class != IN {
            return Err(Bogus::BrokenChain);
        }
        let alias = Alias {
            owner: record.owner,
            target: record.target()?,
            ttl: ttl(&record),
        };
        let count = aliases.len();
        match aliases.iter_mut().find(|known| known.owner.same_as(alias.owner)) {
            None if count == MAX_CHAIN => return Err(Bogus::TooLong),
            None => aliases.push(alias),
            Some(known) if known.target.same_as(alias.target) => known.ttl = known.ttl.min(alias.ttl),
            Some(_) => return Err(Bogus::TwoAliases),
        }
    }

    let mut chain = Chain {
        targets: SmallVec::new(),
        last: start,
        ttl: Duration::MAX,
    };
    while let Some(alias) = aliases.iter().find(|alias| alias.owner.same_as(chain.last)) {
        // Owners are distinct, so more steps than aliases means that one was taken twice.
        if chain.targets.len() == aliases.len() {
            return Err(Bogus::Circle);
        }
        chain.targets.push(alias.target);
        chain.last = alias.target;
        chain.ttl = chain.ttl.min(alias.ttl);
    }
    match chain.targets.len() == aliases.len() {
        true => Ok(chain),
        false => Err(Bogus::BrokenChain),
    }
}

struct Alias<'m> {
    owner: WireName<'m>,
    target: WireName<'m>,
    ttl: Duration,
}

fn answer_records(answer: &[u8], at: usize, count: u16) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    let mut reader = Reader::at(answer, at);
    (0..count).map(move |_| reader.record())
}

/// Whether the record holds, or may hold, addresses.
fn teaches(record: &Record<'_>) -> bool {
    matches!(record.rtype, rtype::A | rtype::AAAA | rtype::HTTPS | rtype::SVCB)
}

fn read_addresses(record: &Record<'_>, mut found: impl FnMut(IpAddr)) -> Result<(), Malformed> {
    match record.rtype {
        rtype::A => found(v4(record.data)?),
        rtype::AAAA => found(v6(record.data)?),
        _ => read_hints(record, found)?,
    }
    Ok(())
}

/// `ipv4hint` and `ipv6hint` of a ServiceMode record (RFC 9460 §2.2 and §7.3). In AliasMode (priority 0) parameters
/// are to be ignored (§2.4.2), and its target is another name's business.
fn read_hints(record: &Record<'_>, mut found: impl FnMut(IpAddr)) -> Result<(), Malformed> {
    let mut reader = Reader::at(record.data, 0);
    if reader.u16()? == 0 {
        return Ok(());
    }
    reader.uncompressed_name()?;
    while !reader.is_at_the_end() {
        let (key, length) = (reader.u16()?, reader.u16()?);
        let value = reader.take(usize::from(length))?;
        match key {
            IPV4_HINT => {
                for address in value.chunks(4) {
                    found(v4(address)?);
                }
            }
            IPV6_HINT => {
                for address in value.chunks(16) {
                    found(v6(address)?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn v4(octets: &[u8]) -> Result<IpAddr, Malformed> {
    let octets: [u8; 4] = octets.try_into().map_err(|_| Malformed)?;
    Ok(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn v6(octets: &[u8]) -> Result<IpAddr, Malformed> {
    let octets: [u8; 16] = octets.try_into().map_err(|_| Malformed)?;
    Ok(IpAddr::V6(Ipv6Addr::from(octets)))
}

/// A TTL with the highest bit set counts as zero (RFC 2181 §8).
fn ttl(record: &Record<'_>) -> Duration {
    let seconds = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
    Duration::from_secs(u64::from(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packets;

    const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)), 53);

    fn learn(question: (&str, &str), records: &[&str]) -> Result<Lesson, Bogus> {
        let query = packets::query(question.0, question.1);
        validate(&Query::read(&query).unwrap(), &packets::answer(&query, records), SOURCE)
    }

    fn addresses(lesson: Result<Lesson, Bogus>) -> Vec<String> {
        let lesson = lesson.unwrap().addresses.into_iter();
        lesson.map(|(ip, ttl)| format!("{ip} {}", ttl.as_secs())).collect()
    }

    #[test]
    fn addresses_of_the_name_itself_are_taught_with_their_own_ttl() {
        let lesson = learn(
            ("a.example.", "A"),
            &["a.example. 60 A 192.0.2.2", "A.eXample. 30 A 192.0.2.1"],
        );
        assert_eq!(addresses(lesson), ["192.0.2.1 30", "192.0.2.2 60"]);
    }

    #[test]
    fn an_address_that_stands_twice_counts_once_with_its_smallest_ttl() {
        let lesson = learn(
            ("a.example.", "A"),
            &["a.example. 60 A 192.0.2.1", "a.example. 30 A 192.0.2.1"],
        );
        assert_eq!(addresses(lesson), ["192.0.2.1 30"]);
    }

    #[test]
    fn a_chain_is_followed_in_any_order_and_its_smallest_ttl_counts() {
        let lesson = learn(
            ("WWW.example.", "AAAA"),
            &[
                "c.example. 300 AAAA 2001:db8::1",
                "b.example. 20 CNAME c.example.",
                "www.example. 100 CNAME b.example.",
            ],
        );
        let chain: Vec<_> = lesson
            .as_ref()
            .unwrap()
            .chain
            .iter()
            .map(|name| name.as_str())
            .collect();
        assert_eq!(chain, ["b.example.", "c.example."]);
        assert_eq!(lesson.as_ref().unwrap().name.as_str(), "www.example.");
        assert_eq!(lesson.as_ref().unwrap().source, SOURCE);
        assert_eq!(addresses(lesson), ["2001:db8::1 20"]);
    }

    #[test]
    fn a_record_beside_the_chain_makes_the_answer_bogus() {
        for stray in [
            "victim.example. 60 A 192.0.2.66",
            "victim.example. 60 AAAA 2001:db8::66",
            "victim.example. 60 CNAME b.example.",
            "victim.example. 60 HTTPS 1 . ipv4hint=192.0.2.66",
            "victim.example. 60 SVCB 1 .",
            // An address of a name that is an alias (RFC 1034 §3.6.2 forbids it).
            "a.example. 60 A 192.0.2.66",
        ] {
            let lesson = learn(
                ("a.example.", "A"),
                &["a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1", stray],
            );
            assert_eq!(lesson, Err(Bogus::BrokenChain), "{stray}");
        }
    }

    #[test]
    fn a_record_of_another_type_beside_the_chain_is_none_of_our_business() {
        let lesson = learn(
            ("a.example.", "A"),
            &["b.example. 60 TXT hello", "a.example. 60 A 192.0.2.1"],
        );
        assert_eq!(addresses(lesson), ["192.0.2.1 60"]);
    }

    #[test]
    fn aliases_in_a_circle_are_bogus() {
        for circle in [
            &["a.example. 60 CNAME a.example."][..],
            &["a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."],
            &["a.example. 60 CNAME b.example.", "b.example. 60 CNAME b.example."],
        ] {
            assert_eq!(learn(("a.example.", "A"), circle), Err(Bogus::Circle));
        }
    }

    #[test]
    fn two_aliases_of_one_name_are_bogus_unless_they_are_the_same() {
        let two = ["a.example. 60 CNAME b.example.", "a.example. 60 CNAME c.example."];
        assert_eq!(learn(("a.example.", "A"), &two), Err(Bogus::TwoAliases));

        let same = [
            "a.example. 60 CNAME b.example.",
            "A.example. 10 CNAME B.example.",
            "b.example. 60 A 192.0.2.1",
        ];
        assert_eq!(addresses(learn(("a.example.", "A"), &same)), ["192.0.2.1 10"]);
    }

    #[test]
    fn a_chain_of_sixteen_aliases_is_followed_and_one_of_seventeen_is_not() {
        let chain = |length: usize| {
            let mut records: Vec<String> = (0..length)
                .map(|i| format!("n{i}.example. 60 CNAME n{}.example.", i + 1))
                .collect();
            records.push(format!("n{length}.example. 60 A 192.0.2.1"));
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            learn(("n0.example.", "A"), &records)
        };
        assert_eq!(addresses(chain(16)), ["192.0.2.1 60"]);
        assert_eq!(chain(17), Err(Bogus::TooLong));
    }

    #[test]
    fn hints_of_a_service_teach_and_those_of_an_alias_do_not() {
        let service = "a.example. 60 HTTPS 1 . ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1";
        assert_eq!(
            addresses(learn(("a.example.", "HTTPS"), &[service])),
            ["192.0.2.1 60", "192.0.2.2 60", "2001:db8::1 60"]
        );
        let alias = "a.example. 60 HTTPS 0 b.example. ipv4hint=192.0.2.1";
        assert!(addresses(learn(("a.example.", "HTTPS"), &[alias])).is_empty());
    }

    #[test]
    fn an_answer_without_addresses_teaches_the_name_alone() {
        assert!(addresses(learn(("a.example.", "TXT"), &["a.example. 60 TXT hello"])).is_empty());
        assert!(addresses(learn(("a.example.", "A"), &[])).is_empty());
        let lesson = learn(("a.example.", "A"), &["a.example. 60 CNAME b.example."]).unwrap();
        assert_eq!(lesson.chain.len(), 1);
    }

    #[test]
    fn addresses_count_under_noerror_only() {
        let query = packets::query("a.example.", "A");
        let mut answer = packets::answer(&query, &["a.example. 60 A 192.0.2.1"]);
        answer[3] |= 3;
        let lesson = validate(&Query::read(&query).unwrap(), &answer, SOURCE);
        assert!(addresses(lesson).is_empty());
    }

    #[test]
    fn another_class_opens_nothing() {
        let query = packets::query("a.example.", "A");
        let mut answer = packets::answer(&query, &["a.example. 60 A 192.0.2.1"]);
        // The class of the record: behind header, question, a pointer and the type.
        let class = query.len() + 4;
        assert_eq!(answer[class..class + 2], [0, 1]);
        answer[class + 1] = 3;
        assert_eq!(
            validate(&Query::read(&query).unwrap(), &answer, SOURCE),
            Err(Bogus::BrokenChain)
        );

        let mut chaos = query;
        *chaos.last_mut().unwrap() = 3;
        assert!(addresses(validate(&Query::read(&chaos).unwrap(), &answer[..], SOURCE)).is_empty());
    }

    #[test]
    fn a_negative_ttl_counts_as_zero() {
        let lesson = learn(("a.example.", "A"), &["a.example. 2147483648 A 192.0.2.1"]);
        assert_eq!(addresses(lesson), ["192.0.2.1 0"]);
    }

    #[test]
    fn every_answer_cut_short_inside_its_answer_section_is_malformed() {
        let query = packets::query("a.example.", "A");
        let records = ["a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1"];
        let answer = packets::answer(&query, &records);
        for length in query.len()..answer.len() {
            let cut = validate(&Query::read(&query).unwrap(), &answer[..length], SOURCE);
            assert_eq!(cut, Err(Bogus::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            let query = packets::query("a.example.", "A");
            let _ = validate(&Query::read(&query).unwrap(), &noise, SOURCE);
        }

        /// Noise that gets past the header and the question.
        #[test]
        fn no_answer_section_makes_it_panic(
            count in 0u16..40,
            noise in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), Just(12), Just(0), Just(1), Just(5)], 0..600),
        ) {
            let query = packets::query("a.example.", "A");
            let mut answer = packets::answer(&query, &[]);
            answer[6..8].copy_from_slice(&count.to_be_bytes());
            answer.extend(noise);
            let _ = validate(&Query::read(&query).unwrap(), &answer, SOURCE);
        }

        /// Byte flips in a good answer: we never learn an address where another implementation reads none.
        #[test]
        fn what_is_learned_is_what_another_implementation_reads(
            flips in proptest::collection::vec((33usize..130, any::<u8>()), 0..3),
        ) {
            let query = packets::query("a.example.", "A");
            let mut answer = packets::answer(
                &query,
                &["a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1", "b.example. 60 A 192.0.2.2"],
            );
            for (at, byte) in flips {
                if let Some(place) = answer.get_mut(at) {
                    *place = byte;
                }
            }
            if let (Ok(lesson), Ok(theirs)) = (
                validate(&Query::read(&query).unwrap(), &answer, SOURCE),
                hickory_proto::op::Message::from_vec(&answer),
            ) {
                let theirs: Vec<IpAddr> = theirs.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
                for (address, _) in lesson.addresses {
                    prop_assert!(theirs.contains(&address));
                }
            }
        }
    }
}
