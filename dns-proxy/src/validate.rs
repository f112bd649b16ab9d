//! Validates an answer, and reads the names and addresses that it may teach.
//!
//! Pure: the bytes of the query and the bytes of the answer go in, a [`ValidatedAnswer`] or the
//! reason against it comes out. That the answer belongs to the question (id, question, sender) was
//! checked before it came here.
//!
//! Only the answer section counts. What a server adds in the sections behind it opens nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smallvec::SmallVec;
use thiserror::Error;

use crate::answer::ValidatedAnswer;
use crate::client_query::Query;
use crate::wire_format::{Header, IN, Malformed, MessageReader, WireName, WireRecord, read_question, rtype};

/// How many CNAMEs an answer may hold. Public resolvers stop between 8 (Unbound) and 16 (BIND).
const MAX_CHAIN: usize = 16;

/// NOERROR, the only code under which addresses are to be used.
const NOERROR: u8 = 0;

/// SVCB and HTTPS keys (RFC 9460 §14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// Why an answer is invalid. It is never released.
#[expect(missing_docs, reason = "each says itself what it is")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum InvalidAnswer {
    #[error("the answer cannot be read")]
    Malformed,
    #[error("broken chain: the answer holds a record that does not hang on the name asked")]
    BrokenChain,
    #[error("broken chain: the aliases lead in a circle")]
    AliasLoop,
    #[error("broken chain: a name has two different aliases")]
    ConflictingAliases,
    #[error("broken chain: more than {MAX_CHAIN} aliases")]
    ChainTooLong,
}

impl From<Malformed> for InvalidAnswer {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads an answer to `query` that came from `source`.
pub(crate) fn validate(query: &Query<'_>, answer: &[u8], source: SocketAddr) -> Result<ValidatedAnswer, InvalidAnswer> {
    let header = Header::read(answer)?;
    let (question, answers_at) = read_question(answer, &header)?;
    let mut validated = ValidatedAnswer::without_addresses(query.question().name.clone(), source);
    // Other classes (CHAOS, for a server's version) hold no Internet addresses.
    if query.question().qclass != IN {
        return Ok(validated);
    }
    let records = || answer_records(answer, answers_at, header.answers);

    let chain = follow(question.name, records())?;
    let services = match question.qtype {
        rtype::HTTPS | rtype::SVCB => follow_services(chain.last, records)?,
        _ => SmallVec::new(),
    };
    let names = chain
        .targets
        .iter()
        .copied()
        .chain(services.iter().map(|alias| alias.target));
    validated.chain = names.map(WireName::to_name).collect();
    for record in records() {
        let record = record?;
        if !teaches(&record) {
            continue;
        }
        let alias_ttl = match record.owner.same_as(chain.last) {
            true => Some(Duration::MAX),
            false => {
                let mut aliases = services.iter();
                aliases.find(|it| record.owner.same_as(it.target)).map(|it| it.ttl)
            }
        };
        let Some(alias_ttl) = alias_ttl.filter(|_| record.class == IN) else {
            return Err(InvalidAnswer::BrokenChain);
        };
        if header.rcode() == NOERROR {
            let ttl = ttl(&record).min(chain.ttl).min(alias_ttl);
            read_addresses(&record, |address| validated.addresses.push((address, ttl)))?;
        }
    }
    // One entry an address, with its smallest TTL (RFC 2181 §5.2), in an order that does not depend
    // on the server.
    validated.addresses.sort_unstable();
    validated.addresses.dedup_by_key(|(address, _)| *address);
    Ok(validated)
}

/// The aliases of an answer, all of them on one way from the name asked.
struct AliasChain<'m> {
    targets: SmallVec<[WireName<'m>; 4]>,
    /// Where the way ends: the owner that addresses must have.
    last: WireName<'m>,
    /// The smallest TTL on the way.
    ttl: Duration,
}

/// Follows the CNAMEs from `start`, in whatever order they stand.
fn follow<'m>(
    start: WireName<'m>,
    records: impl Iterator<Item = Result<WireRecord<'m>, Malformed>>,
) -> Result<AliasChain<'m>, InvalidAnswer> {
    let mut aliases: SmallVec<[AliasLink<'m>; 4]> = SmallVec::new();
    for record in records {
        let record = record?;
        if record.rtype != rtype::CNAME {
            continue;
        }
        if record.class != IN {
            return Err(InvalidAnswer::BrokenChain);
        }
        let alias = AliasLink {
            owner: record.owner,
            target: record.target()?,
            ttl: ttl(&record),
        };
        let count = aliases.len();
        match aliases.iter_mut().find(|known| known.owner.same_as(alias.owner)) {
            None if count == MAX_CHAIN => return Err(InvalidAnswer::ChainTooLong),
            None => aliases.push(alias),
            Some(known) if known.target.same_as(alias.target) => known.ttl = known.ttl.min(alias.ttl),
            Some(_) => return Err(InvalidAnswer::ConflictingAliases),
        }
    }

    let mut chain = AliasChain {
        targets: SmallVec::new(),
        last: start,
        ttl: Duration::MAX,
    };
    while let Some(alias) = aliases.iter().find(|alias| alias.owner.same_as(chain.last)) {
        // Owners are distinct, so more steps than aliases means that one was taken twice.
        if chain.targets.len() == aliases.len() {
            return Err(InvalidAnswer::AliasLoop);
        }
        chain.targets.push(alias.target);
        chain.last = alias.target;
        chain.ttl = chain.ttl.min(alias.ttl);
    }
    match chain.targets.len() == aliases.len() {
        true => Ok(chain),
        false => Err(InvalidAnswer::BrokenChain),
    }
}

/// Follows HTTPS and SVCB records in AliasMode (RFC 9460 §2.4.2) from `start`, as long as each name
/// has one such alias alone. Where it has several a client takes any of them, so none is followed,
/// and what hangs on them is off the chain. Each TTL is the smallest on the way.
fn follow_services<'m, R>(
    start: WireName<'m>,
    records: impl Fn() -> R,
) -> Result<SmallVec<[AliasLink<'m>; 4]>, InvalidAnswer>
where
    R: Iterator<Item = Result<WireRecord<'m>, Malformed>>,
{
    let mut aliases: SmallVec<[AliasLink<'m>; 4]> = SmallVec::new();
    loop {
        let (owner, so_far) = aliases
            .last()
            .map_or((start, Duration::MAX), |last| (last.target, last.ttl));
        let mut next: Option<AliasLink<'m>> = None;
        for record in records() {
            let record = record?;
            if !matches!(record.rtype, rtype::HTTPS | rtype::SVCB) || !record.owner.same_as(owner) {
                continue;
            }
            let Some(target) = record.service_alias()? else {
                continue;
            };
            if next.is_some_and(|known| !known.target.same_as(target)) {
                return Ok(aliases);
            }
            let ttl = ttl(&record).min(so_far);
            next = Some(AliasLink { owner, target, ttl });
        }
        match next {
            // `.` as target says that there is no such service.
            Some(alias) if !alias.target.is_root() => {
                let known = alias.target.same_as(start) || aliases.iter().any(|it| it.target.same_as(alias.target));
                if known {
                    return Err(InvalidAnswer::AliasLoop);
                }
                if aliases.len() == MAX_CHAIN {
                    return Err(InvalidAnswer::ChainTooLong);
                }
                aliases.push(alias);
            }
            _ => return Ok(aliases),
        }
    }
}

#[derive(Clone, Copy)]
struct AliasLink<'m> {
    owner: WireName<'m>,
    target: WireName<'m>,
    ttl: Duration,
}

fn answer_records(answer: &[u8], at: usize, count: u16) -> impl Iterator<Item = Result<WireRecord<'_>, Malformed>> {
    let mut reader = MessageReader::at(answer, at);
    (0..count).map(move |_| reader.record())
}

/// Whether the record holds, or may hold, addresses.
fn teaches(record: &WireRecord<'_>) -> bool {
    matches!(record.rtype, rtype::A | rtype::AAAA | rtype::HTTPS | rtype::SVCB)
}

fn read_addresses(record: &WireRecord<'_>, mut found: impl FnMut(IpAddr)) -> Result<(), Malformed> {
    match record.rtype {
        rtype::A => found(v4(record.data)?),
        rtype::AAAA => found(v6(record.data)?),
        _ => read_hints(record, found)?,
    }
    Ok(())
}

/// `ipv4hint` and `ipv6hint` of a ServiceMode record (RFC 9460 §2.2 and §7.3). In AliasMode
/// (priority 0) parameters are to be ignored (§2.4.2).
fn read_hints(record: &WireRecord<'_>, mut found: impl FnMut(IpAddr)) -> Result<(), Malformed> {
    let mut reader = MessageReader::at(record.data, 0);
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
    // A client that connects to a mapped address sends IPv4 (RFC 4291 §2.5.5.2).
    Ok(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
}

/// A TTL with the highest bit set counts as zero (RFC 2181 §8).
fn ttl(record: &WireRecord<'_>) -> Duration {
    let seconds = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
    Duration::from_secs(u64::from(seconds))
}

#[cfg(test)]
mod tests;
