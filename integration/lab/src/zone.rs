//! The records of the resolver, and answers that are scripted in their place.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use thiserror::Error;

/// A longer CNAME chain is cut in the answer.
const LONGEST_CHAIN: usize = 16;

/// The records, scripted answers and counters of the resolver.
#[derive(Debug, Default)]
pub(super) struct LabZone {
    records: BTreeMap<LowerName, Vec<Record>>,
    scripts: BTreeMap<LowerName, ScriptedAnswer>,
    synthesis: Vec<NumberedNames>,
    asked: BTreeMap<LowerName, u64>,
}

/// How a name is answered in place of its records.
#[derive(Debug, Clone)]
pub enum ScriptedAnswer {
    /// With its records, after this time.
    Delay(Duration),
    /// Not at all.
    Silence,
    /// With this code and no records.
    Code(ResponseCode),
    /// Truncated (TC) and without records over UDP, with its records over TCP.
    Truncate,
    /// With exactly these records (lines as for [`Resolver::set`](super::resolver::Resolver::set)),
    /// whatever they have to do with the question.
    Verbatim(Vec<String>),
}

/// The names `n0.<suffix>`, `n1.<suffix>`, …, whose records are computed: name `n` has the address
/// `first + n`.
#[derive(Debug, Clone)]
pub struct NumberedNames {
    /// What the names end in.
    pub suffix: String,
    /// The time to live of their records, in seconds.
    pub ttl: u32,
    /// How many addresses of each family a name has; those of `n1` come after those of `n0`.
    pub addresses: u32,
    /// The first A record of `n0`.
    pub first4: Ipv4Addr,
    /// The first AAAA record of `n0`.
    pub first6: Ipv6Addr,
}

/// A line cannot be parsed as a record.
#[derive(Debug, Error)]
#[error("`{line}` is not a record: {reason}; write `name ttl type data`")]
pub struct ZoneError {
    line: String,
    reason: String,
}

/// The answer to a question.
#[derive(Debug)]
pub(super) struct ZoneAnswer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    /// The SOA record of a negative answer (RFC 2308 §2).
    pub(super) soa: Option<Record>,
    pub(super) delay: Duration,
    pub(super) truncated: bool,
}

impl LabZone {
    /// Replaces the record set of each name and type that `lines` mention.
    pub(super) fn set(&mut self, lines: &[&str]) -> Result<(), ZoneError> {
        let records = lines.iter().map(|line| parse(line)).collect::<Result<Vec<_>, _>>()?;
        for record in &records {
            if let Some(known) = self.records.get_mut(&LowerName::new(&record.name)) {
                known.retain(|old| old.record_type() != record.record_type());
            }
        }
        for record in records {
            self.records
                .entry(LowerName::new(&record.name))
                .or_default()
                .push(record);
        }
        Ok(())
    }

    /// Removes all records and the scripted answer of a name.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), ZoneError> {
        let name = lower(name)?;
        self.records.remove(&name);
        self.scripts.remove(&name);
        Ok(())
    }

    /// Answers `name` by `script` from now on; `None` for its records.
    pub(super) fn script(&mut self, name: &str, script: Option<ScriptedAnswer>) -> Result<(), ZoneError> {
        let name = lower(name)?;
        if let Some(ScriptedAnswer::Verbatim(lines)) = &script {
            for line in lines {
                parse(line)?;
            }
        }
        match script {
            Some(script) => self.scripts.insert(name, script),
            None => self.scripts.remove(&name),
        };
        Ok(())
    }

    pub(super) fn synthesize(&mut self, synthesis: NumberedNames) {
        self.synthesis.push(synthesis);
    }

    /// How often `name` was asked, of whatever type.
    pub(super) fn asked(&self, name: &str) -> u64 {
        lower(name)
            .ok()
            .and_then(|name| self.asked.get(&name).copied())
            .unwrap_or(0)
    }

    /// How often anything was asked.
    pub(super) fn asked_in_all(&self) -> u64 {
        self.asked.values().sum()
    }

    /// The answer to one question, counted; `None` means silence.
    pub(super) fn answer(&mut self, name: &LowerName, kind: RecordType, udp: bool) -> Option<ZoneAnswer> {
        *self.asked.entry(name.clone()).or_default() += 1;
        let answer = self.look_up(name, kind);
        Some(match self.scripts.get(name) {
            None => answer,
            Some(ScriptedAnswer::Delay(delay)) => ZoneAnswer {
                delay: *delay,
                ..answer
            },
            Some(ScriptedAnswer::Silence) => return None,
            Some(ScriptedAnswer::Code(code)) => ZoneAnswer {
                code: *code,
                records: Vec::new(),
                soa: None,
                ..answer
            },
            Some(ScriptedAnswer::Truncate) if udp => ZoneAnswer {
                records: Vec::new(),
                truncated: true,
                ..answer
            },
            Some(ScriptedAnswer::Truncate) => answer,
            Some(ScriptedAnswer::Verbatim(lines)) => {
                let records = lines.iter().filter_map(|line| parse(line).ok()).collect();
                ZoneAnswer {
                    code: ResponseCode::NoError,
                    records,
                    soa: None,
                    ..answer
                }
            }
        })
    }

    fn look_up(&self, question: &LowerName, kind: RecordType) -> ZoneAnswer {
        let mut records: Vec<Record> = Vec::new();
        let mut name = question.clone();
        let mut exists = false;
        for _ in 0..LONGEST_CHAIN {
            let known = match self.records.get(&name) {
                Some(known) => known.clone(),
                None => self
                    .synthesis
                    .iter()
                    .find_map(|synthesis| synthesis.records(&name))
                    .unwrap_or_default(),
            };
            exists |= !known.is_empty();
            let before = records.len();
            records.extend(known.iter().filter(|record| record.record_type() == kind).cloned());
            if records.len() > before {
                break;
            }
            let Some(alias) = known
                .into_iter()
                .find(|record| record.record_type() == RecordType::CNAME)
            else {
                break;
            };
            let RData::CNAME(target) = &alias.data else { break };
            // RFC 2308 §2.1: a chain that ends in a name that does not exist is NXDOMAIN.
            (name, exists) = (LowerName::new(&target.0), false);
            records.push(alias);
        }
        let answered = records.last().is_some_and(|record| record.record_type() == kind);
        ZoneAnswer {
            code: if exists || answered {
                ResponseCode::NoError
            } else {
                ResponseCode::NXDomain
            },
            soa: (!answered).then(soa),
            records,
            delay: Duration::ZERO,
            truncated: false,
        }
    }
}

impl NumberedNames {
    fn records(&self, name: &LowerName) -> Option<Vec<Record>> {
        let text = name.to_string();
        let number = text
            .trim_end_matches('.')
            .strip_suffix(self.suffix.trim_end_matches('.'))?;
        let number: u32 = number.strip_suffix('.')?.strip_prefix('n')?.parse().ok()?;
        let records = (0..self.addresses).flat_map(|place| {
            let offset = number.wrapping_mul(self.addresses).wrapping_add(place);
            let a = A(Ipv4Addr::from(u32::from(self.first4).wrapping_add(offset)));
            let aaaa = AAAA(Ipv6Addr::from(u128::from(self.first6).wrapping_add(offset.into())));
            [RData::A(a), RData::AAAA(aaaa)]
        });
        Some(
            records
                .map(|data| Record::from_rdata(Name::from(name), self.ttl, data))
                .collect(),
        )
    }
}

fn parse(line: &str) -> Result<Record, ZoneError> {
    let refuse = |reason: &str| ZoneError {
        line: line.to_owned(),
        reason: reason.to_owned(),
    };
    let mut words = line.split_whitespace();
    let mut word = |what: &str| words.next().ok_or_else(|| refuse(&format!("no {what}")));
    let name = fqdn(word("name")?)?;
    let ttl = word("ttl")?.parse().map_err(|_| refuse("the ttl is not a number"))?;
    let kind = RecordType::from_str(word("type")?).map_err(|error| refuse(&error.to_string()))?;
    let data = words.collect::<Vec<_>>().join(" ");
    let data = RData::try_from_str(kind, &data).map_err(|error| refuse(&error.to_string()))?;
    Ok(Record::from_rdata(name, ttl, data))
}

fn lower(name: &str) -> Result<LowerName, ZoneError> {
    fqdn(name).map(|name| LowerName::new(&name))
}

fn fqdn(name: &str) -> Result<Name, ZoneError> {
    let mut parsed = Name::from_ascii(name).map_err(|error| ZoneError {
        line: name.to_owned(),
        reason: error.to_string(),
    })?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn soa() -> Record {
    let data = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86400, 5);
    Record::from_rdata(Name::root(), 5, RData::SOA(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(lines: &[&str]) -> LabZone {
        let mut zone = LabZone::default();
        zone.set(lines).unwrap();
        zone
    }

    fn texts(zone: &mut LabZone, name: &str, kind: RecordType) -> Vec<String> {
        let answer = zone.answer(&lower(name).unwrap(), kind, true).unwrap();
        answer.records.iter().map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn a_chain_is_followed_to_the_addresses() {
        let mut zone = zone(&[
            "a.example 60 CNAME b.example.",
            "b.example 60 A 192.0.2.1",
            "b.example 60 A 192.0.2.2",
        ]);
        assert_eq!(
            texts(&mut zone, "A.example", RecordType::A),
            ["b.example.", "192.0.2.1", "192.0.2.2"]
        );
        assert_eq!(zone.asked("a.example"), 1);
    }

    #[test]
    fn setting_a_record_set_replaces_that_type_only() {
        let mut zone = zone(&["a.example 60 A 192.0.2.1", "a.example 60 AAAA 2001:db8::1"]);
        zone.set(&["a.example 60 A 192.0.2.9"]).unwrap();
        assert_eq!(texts(&mut zone, "a.example", RecordType::A), ["192.0.2.9"]);
        assert_eq!(texts(&mut zone, "a.example", RecordType::AAAA), ["2001:db8::1"]);
    }

    #[test]
    fn an_unknown_name_is_nxdomain_and_a_known_one_without_the_type_is_not() {
        let mut zone = zone(&["a.example 60 A 192.0.2.1"]);
        let answer = zone.answer(&lower("b.example").unwrap(), RecordType::A, true).unwrap();
        assert_eq!((answer.code, answer.soa.is_some()), (ResponseCode::NXDomain, true));
        let answer = zone
            .answer(&lower("a.example").unwrap(), RecordType::TXT, true)
            .unwrap();
        assert_eq!((answer.code, answer.soa.is_some()), (ResponseCode::NoError, true));
    }

    #[test]
    fn synthesized_names_count_up_from_the_first_address() {
        let mut zone = LabZone::default();
        zone.synthesize(NumberedNames {
            suffix: "race.example".into(),
            ttl: 60,
            addresses: 1,
            first4: Ipv4Addr::new(198, 18, 0, 0),
            first6: "2001:db8:1::".parse().unwrap(),
        });
        assert_eq!(texts(&mut zone, "n258.race.example", RecordType::A), ["198.18.1.2"]);
        assert_eq!(
            texts(&mut zone, "n258.race.example", RecordType::AAAA),
            ["2001:db8:1::102"]
        );
        assert!(texts(&mut zone, "x.race.example", RecordType::A).is_empty());
    }

    #[test]
    fn hints_are_written_as_in_a_zone_file() {
        let mut zone = zone(&["h.example 60 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1"]);
        let answers = texts(&mut zone, "h.example", RecordType::HTTPS);
        assert!(answers[0].contains("192.0.2.1"), "{answers:?}");
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_with_it() {
        let error = LabZone::default().set(&["a.example soon A 192.0.2.1"]).unwrap_err();
        assert!(error.to_string().contains("the ttl is not a number"), "{error}");
    }
}
