//! Encodes sets and their elements.

use std::time::Duration;

use crate::layout::IpFamily;
use crate::netlink::message::{ATTRIBUTE, Encoder, align, flags};
use crate::netlink::objects::{
    Datatype, ElementMeter, MapValue, MapValueType, NewElement, NftRule, NftVerdict, PacketField, RuleLookup,
    RuleMatch, SetSpec, half_open,
};
use crate::netlink::set_key::{KeyRange, SetKey};
use crate::netlink::{nf_tables, table_snapshot, verdict};

use super::TransactionEncoder;
use super::expression::{ESTABLISHED, RELATED, ResolvedMatch, ResolvedRule};

/// `NFT_DATA_VERDICT`.
const TYPE_OF_VERDICTS: u32 = 0xffff_ff00;
/// `sizeof(struct nft_verdict)`: a number, padded, and a pointer.
const VERDICT_LENGTH: usize = 2 * size_of::<usize>();

impl TransactionEncoder<'_> {
    /// Writes the message that makes a named set.
    pub(super) fn add_set(&mut self, name: &str, form: &SetSpec) {
        let shape = SetDeclaration {
            flags: flags_of(form),
            key: &form.key,
            maps_to: form.maps_to,
            size: form.size,
            swept: form.swept,
            concatenated_ranges: false,
            meter: form.meter,
        };
        let id = self.next_id();
        self.set(name, id, &shape);
    }

    /// Writes the messages that make the sets which a rule needs for itself, and returns the rule
    /// with the names of these sets.
    pub(super) fn resolve<'r>(&mut self, rule: &'r NftRule) -> ResolvedRule<'r> {
        let mut tests = Vec::new();
        self.resolve_test(&rule.test, &mut tests);
        ResolvedRule {
            tests,
            verdict: rule.verdict.as_ref(),
        }
    }

    fn resolve_test<'r>(&mut self, test: &'r RuleMatch, resolved: &mut Vec<ResolvedMatch<'r>>) {
        let test = match test {
            RuleMatch::Always => return,
            RuleMatch::Each(tests) => return tests.iter().for_each(|test| self.resolve_test(test, resolved)),
            RuleMatch::Is(protocol) => ResolvedMatch::Is(protocol.number()),
            RuleMatch::IsTo(port) => ResolvedMatch::IsTo(*port),
            RuleMatch::Established => ResolvedMatch::State(ESTABLISHED),
            RuleMatch::Related => ResolvedMatch::State(RELATED),
            RuleMatch::In(fields, RuleLookup::Set(set)) => ResolvedMatch::In {
                fields,
                set: set.to_string(),
                id: None,
                is_map: false,
            },
            RuleMatch::In(fields, RuleLookup::Ranges(ranges)) => {
                self.own_set(fields, ranges.iter().map(|range| (range, None)), false)
            }
            RuleMatch::In(fields, RuleLookup::Verdicts(ranges)) => {
                let pairs = ranges.iter().map(|(range, verdict)| (range, Some(verdict)));
                self.own_set(fields, pairs, true)
            }
            RuleMatch::In(fields, RuleLookup::Keys(keys)) => self.own_keys(fields, keys),
        };
        resolved.push(test);
    }

    fn own_keys<'r>(&mut self, fields: &'r [PacketField], keys: &[SetKey]) -> ResolvedMatch<'r> {
        let key: Vec<Datatype> = fields.iter().map(|field| field.datatype()).collect();
        let name = "__set%d";
        let id = self.next_id();
        let shape = SetDeclaration {
            flags: nf_tables::set_flag::ANONYMOUS | nf_tables::set_flag::CONSTANT,
            key: &key,
            maps_to: None,
            size: Some(u32::try_from(keys.len()).unwrap_or(u32::MAX)),
            swept: None,
            concatenated_ranges: false,
            meter: None,
        };
        self.set(name, id, &shape);
        let elements: Vec<_> = keys.iter().cloned().map(NewElement::plain).collect();
        self.add_elements(name, Some(id), &elements);
        ResolvedMatch::In {
            fields,
            set: name.to_owned(),
            id: Some(id),
            is_map: false,
        }
    }

    fn own_set<'r>(
        &mut self,
        fields: &'r [PacketField],
        ranges: impl Iterator<Item = (&'r KeyRange, Option<&'r NftVerdict>)>,
        is_map: bool,
    ) -> ResolvedMatch<'r> {
        let key: Vec<Datatype> = fields.iter().map(|field| field.datatype()).collect();
        let concatenated = key.len() > 1;
        let name = if is_map { "__map%d" } else { "__set%d" };
        let elements = if concatenated {
            ranges.map(|(range, verdict)| whole(range, verdict)).collect()
        } else {
            half_open(ranges)
        };
        let id = self.next_id();
        let shape = SetDeclaration {
            flags: nf_tables::set_flag::ANONYMOUS
                | nf_tables::set_flag::CONSTANT
                | nf_tables::set_flag::INTERVAL
                | if is_map { nf_tables::set_flag::MAP } else { 0 }
                | if concatenated { nf_tables::set_flag::CONCAT } else { 0 },
            key: &key,
            maps_to: is_map.then_some(MapValueType::Verdict),
            size: Some(u32::try_from(elements.len()).unwrap_or(u32::MAX)),
            swept: None,
            concatenated_ranges: concatenated,
            meter: None,
        };
        self.set(name, id, &shape);
        self.add_elements(name, Some(id), &elements);
        ResolvedMatch::In {
            fields,
            set: name.to_owned(),
            id: Some(id),
            is_map,
        }
    }

    fn set(&mut self, name: &str, id: u32, shape: &SetDeclaration<'_>) {
        let message = self.open(nf_tables::msg::NEW_SET, flags::CREATE);
        let encoder = &mut self.encoder;
        encoder.string(nf_tables::set::TABLE, self.table);
        encoder.string(nf_tables::set::NAME, name);
        encoder.attribute(nf_tables::set::FLAGS, &shape.flags.to_be_bytes());
        encoder.attribute(nf_tables::set::KEY_TYPE, &type_of(shape.key).to_be_bytes());
        encoder.attribute(nf_tables::set::KEY_LENGTH, &length_of(shape.key).to_be_bytes());
        match shape.maps_to {
            None => {}
            Some(MapValueType::Verdict) => {
                encoder.attribute(nf_tables::set::DATA_TYPE, &TYPE_OF_VERDICTS.to_be_bytes());
                encoder.attribute(nf_tables::set::DATA_LENGTH, &0u32.to_be_bytes());
            }
            Some(MapValueType::Value(datatype)) => {
                encoder.attribute(nf_tables::set::DATA_TYPE, &type_of(&[datatype]).to_be_bytes());
                encoder.attribute(nf_tables::set::DATA_LENGTH, &length_of(&[datatype]).to_be_bytes());
            }
        }
        if let Some(interval) = shape.swept {
            encoder.attribute(nf_tables::set::GC_INTERVAL, &millis(interval).to_be_bytes());
        }
        if let Some(meter) = &shape.meter {
            let timeout = u64::from(millis(meter.forgotten_after));
            encoder.attribute(nf_tables::set::TIMEOUT, &timeout.to_be_bytes());
            meter_expression(encoder, meter);
        }
        if shape.size.is_some() || shape.concatenated_ranges {
            let description = encoder.open_nest(nf_tables::set::DESCRIPTION);
            if let Some(size) = shape.size {
                encoder.attribute(nf_tables::set_description::SIZE, &size.to_be_bytes());
            }
            if shape.concatenated_ranges {
                let fields = encoder.open_nest(nf_tables::set_description::CONCAT);
                for datatype in shape.key {
                    let field = encoder.open_nest(nf_tables::LIST_ELEMENT);
                    encoder.attribute(nf_tables::set_field::LENGTH, &octets(datatype.length()).to_be_bytes());
                    encoder.close_nest(field);
                }
                encoder.close_nest(fields);
            }
            encoder.close_nest(description);
        }
        encoder.attribute(nf_tables::set::ID, &id.to_be_bytes());
        encoder.close_message(message);
    }

    fn next_id(&mut self) -> u32 {
        self.anonymous += 1;
        self.anonymous
    }
}

/// What the kernel lists of a named set that was declared so.
pub(crate) fn declared(form: &SetSpec) -> (table_snapshot::SetShape, table_snapshot::SetLimits) {
    let (data_type, data_length) = match form.maps_to {
        None => (0, 0),
        // The kernel's own size of a verdict, whatever was declared.
        Some(MapValueType::Verdict) => (TYPE_OF_VERDICTS, octets(VERDICT_LENGTH)),
        Some(MapValueType::Value(datatype)) => (type_of(&[datatype]), length_of(&[datatype])),
    };
    let shape = table_snapshot::SetShape {
        flags: flags_of(form),
        key_type: type_of(&form.key),
        key_length: length_of(&form.key),
        data_type,
        data_length,
    };
    let limits = table_snapshot::SetLimits {
        size: form.size.unwrap_or(0),
        timeout: form.meter.map_or(0, |meter| millis(meter.forgotten_after).into()),
        sweep: form.swept.map_or(0, millis),
    };
    (shape, limits)
}

fn flags_of(form: &SetSpec) -> u32 {
    [
        (form.ranges, nf_tables::set_flag::INTERVAL),
        (form.timeouts, nf_tables::set_flag::TIMEOUT),
        (
            form.meter.is_some(),
            nf_tables::set_flag::EVAL | nf_tables::set_flag::EXPR,
        ),
        (form.maps_to.is_some(), nf_tables::set_flag::MAP),
    ]
    .into_iter()
    .filter(|(condition, _)| *condition)
    .fold(0, |flags, (_, flag)| flags | flag)
}

fn millis(interval: Duration) -> u32 {
    u32::try_from(interval.as_millis()).unwrap_or(u32::MAX)
}

/// What a message declares a set with.
struct SetDeclaration<'a> {
    flags: u32,
    key: &'a [Datatype],
    maps_to: Option<MapValueType>,
    size: Option<u32>,
    swept: Option<Duration>,
    concatenated_ranges: bool,
    meter: Option<ElementMeter>,
}

/// Writes the limit that each element of a set has.
fn meter_expression(encoder: &mut Encoder, meter: &ElementMeter) {
    let expression = encoder.open_nest(nf_tables::set::EXPRESSION);
    encoder.string(nf_tables::expression::NAME, "limit");
    let data = encoder.open_nest(nf_tables::expression::DATA);
    encoder.attribute(nf_tables::limit::RATE, &u64::from(meter.rate).to_be_bytes());
    encoder.attribute(nf_tables::limit::UNIT, &1u64.to_be_bytes());
    encoder.attribute(nf_tables::limit::BURST, &meter.burst.to_be_bytes());
    encoder.attribute(nf_tables::limit::TYPE, &nf_tables::limit::PACKETS.to_be_bytes());
    encoder.attribute(nf_tables::limit::FLAGS, &nf_tables::limit::INVERTED.to_be_bytes());
    encoder.close_nest(data);
    encoder.close_nest(expression);
}

/// nft's number of a datatype; of several fields with six bits for each. The kernel only keeps it
/// for whoever lists the set.
fn type_of(key: &[Datatype]) -> u32 {
    key.iter().fold(0, |number, datatype| {
        let of_part = match datatype {
            Datatype::Address(IpFamily::V4) => 7,
            Datatype::Address(IpFamily::V6) => 8,
            Datatype::Protocol => 12,
            Datatype::Port => 13,
            Datatype::MessageType(IpFamily::V4) => 14,
            Datatype::Link => 20,
            Datatype::MessageType(IpFamily::V6) => 29,
        };
        number << 6 | of_part
    })
}

/// The length of a key in octets. Each field of a concatenation is padded to four octets.
fn length_of(key: &[Datatype]) -> u32 {
    match key {
        [only] => octets(only.length()),
        parts => octets(parts.iter().map(|part| align(part.length())).sum()),
    }
}

fn octets(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A range over keys of several fields.
fn whole(range: &KeyRange, verdict: Option<&NftVerdict>) -> NewElement {
    NewElement {
        last: Some(range.last.clone()),
        value: verdict.cloned().map(MapValue::Verdict),
        ..NewElement::plain(range.first.clone())
    }
}

/// An upper bound of the octets that [`encode_element`] writes, with the nested attribute around
/// it.
pub(super) fn element_size(element: &NewElement) -> usize {
    let key = |length: usize| 2 * ATTRIBUTE + align(length);
    let value = match &element.value {
        None => 0,
        Some(MapValue::Data(data)) => key(data.len()),
        Some(MapValue::Verdict(NftVerdict::Accept | NftVerdict::Drop | NftVerdict::Return)) => 3 * ATTRIBUTE + 4,
        Some(MapValue::Verdict(NftVerdict::Goto(chain))) => 4 * ATTRIBUTE + 4 + align(chain.len() + 1),
    };
    ATTRIBUTE
        + key(element.key.len())
        + element.last.as_ref().map_or(0, |last| key(last.len()))
        + usize::from(element.ends_range) * (ATTRIBUTE + 4)
        + usize::from(element.timeout.is_some()) * 2 * (ATTRIBUTE + 8)
        + value
}

pub(super) fn encode_element(encoder: &mut Encoder, element: &NewElement) {
    data(encoder, nf_tables::element::KEY, &element.key);
    if let Some(last) = &element.last {
        data(encoder, nf_tables::element::KEY_END, last);
    }
    if element.ends_range {
        encoder.attribute(
            nf_tables::element::FLAGS,
            &nf_tables::ELEMENT_INTERVAL_END.to_be_bytes(),
        );
    }
    if let Some(timeout) = element.timeout {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        encoder.attribute(nf_tables::element::TIMEOUT, &millis.to_be_bytes());
        encoder.attribute(nf_tables::element::EXPIRATION, &millis.to_be_bytes());
    }
    match &element.value {
        None => {}
        Some(MapValue::Data(value)) => data(encoder, nf_tables::element::DATA, value),
        Some(MapValue::Verdict(verdict)) => {
            let nest = encoder.open_nest(nf_tables::element::DATA);
            verdict::encode(encoder, verdict);
            encoder.close_nest(nest);
        }
    }
}

fn data(encoder: &mut Encoder, kind: u16, value: &[u8]) {
    let nest = encoder.open_nest(kind);
    encoder.attribute(nf_tables::data::VALUE, value);
    encoder.close_nest(nest);
}
