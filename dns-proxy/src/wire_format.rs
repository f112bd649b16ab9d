//! Reading DNS messages in place (RFC 1035 §4.1).
//!
//! What is forwarded and released are the sender's own bytes, so that a message is only read here.
//! These are views that borrow the message, allocate nothing, and read no more than a decision
//! needs. A record of an unknown type, or with strange data, is stepped over.

use std::fmt;

use names::Name;
use thiserror::Error;

/// Length of the header (RFC 1035 §4.1.1).
pub(crate) const HEADER: usize = 12;

/// The longest name on the wire, in octets (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// The most compression pointers in a name: one for each label, of which a name has at most 127.
const MAX_POINTERS: usize = 127;

/// Record types that this crate tells apart.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// The Internet class (RFC 1035 §3.2.4).
pub(crate) const IN: u16 = 1;

/// The message ends too early, or a name in it breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed message")]
pub(crate) struct Malformed;

/// The fixed fields at the start of every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) questions: u16,
    pub(crate) answers: u16,
    pub(crate) authorities: u16,
    pub(crate) additionals: u16,
}

/// The one question of a message, in place.
#[derive(Clone, Copy)]
pub(crate) struct WireQuestion<'m> {
    pub(crate) name: WireName<'m>,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
}

/// One resource record, in place.
#[derive(Clone, Copy)]
pub(crate) struct WireRecord<'m> {
    pub(crate) owner: WireName<'m>,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    /// In seconds. An OPT record has its extended response code, version and flags here instead.
    pub(crate) ttl: u32,
    pub(crate) data: &'m [u8],
    /// The offset of `data` in the message, for compressed names inside it.
    data_at: usize,
}

/// A well-formed name inside a message: every pointer leads backward, and it ends.
#[derive(Clone, Copy)]
pub(crate) struct WireName<'m> {
    message: &'m [u8],
    at: usize,
}

/// Reads a message from front to back.
pub(crate) struct MessageReader<'m> {
    message: &'m [u8],
    at: usize,
}

impl Header {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const AD: u16 = 0x0020;
    pub(crate) const CD: u16 = 0x0010;

    pub(crate) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = MessageReader { message, at: 0 };
        Ok(Self {
            id: reader.u16()?,
            flags: reader.u16()?,
            questions: reader.u16()?,
            answers: reader.u16()?,
            authorities: reader.u16()?,
            additionals: reader.u16()?,
        })
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn opcode(&self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// The lower four bits of the response code. A header holds no more (RFC 6891 §6.1.3).
    pub(crate) fn rcode(&self) -> u8 {
        (self.flags & 0xf) as u8
    }
}

impl<'m> MessageReader<'m> {
    /// A reader that begins behind the header.
    pub(crate) fn after_header(message: &'m [u8]) -> Self {
        Self { message, at: HEADER }
    }

    /// A reader that begins at this offset.
    pub(crate) fn at(message: &'m [u8], at: usize) -> Self {
        Self { message, at }
    }

    /// The offset of the next item.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_at_the_end(&self) -> bool {
        self.at >= self.message.len()
    }

    pub(crate) fn question(&mut self) -> Result<WireQuestion<'m>, Malformed> {
        Ok(WireQuestion {
            name: self.name()?,
            qtype: self.u16()?,
            qclass: self.u16()?,
        })
    }

    pub(crate) fn record(&mut self) -> Result<WireRecord<'m>, Malformed> {
        let owner = self.name()?;
        let (rtype, class) = (self.u16()?, self.u16()?);
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let length = usize::from(self.u16()?);
        let data_at = self.at;
        let data = self.take(length)?;
        Ok(WireRecord {
            owner,
            rtype,
            class,
            ttl,
            data,
            data_at,
        })
    }

    pub(crate) fn name(&mut self) -> Result<WireName<'m>, Malformed> {
        let name = WireName {
            message: self.message,
            at: self.at,
        };
        self.at = name.end()?;
        Ok(name)
    }

    /// Steps over a name that must not be compressed, as in record types since RFC 3597.
    pub(crate) fn uncompressed_name(&mut self) -> Result<(), Malformed> {
        loop {
            match NamePart::at(self.message, self.at).ok_or(Malformed)? {
                NamePart::Root => {
                    self.at += 1;
                    return Ok(());
                }
                NamePart::Label(label) => self.at += 1 + label.len(),
                NamePart::Pointer(_) => return Err(Malformed),
            }
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'m [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let bytes = self.message.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(bytes)
    }
}

/// The question of a message, and the offset behind the question section. A message with another
/// number of questions is malformed.
pub(crate) fn read_question<'m>(message: &'m [u8], header: &Header) -> Result<(WireQuestion<'m>, usize), Malformed> {
    if header.questions != 1 {
        return Err(Malformed);
    }
    let mut reader = MessageReader::after_header(message);
    let question = reader.question()?;
    Ok((question, reader.position()))
}

impl<'m> WireRecord<'m> {
    /// The offset of its TTL, which stands before the length of the data and the data.
    pub(crate) fn ttl_at(&self) -> u16 {
        // A message has at most 65,535 octets.
        (self.data_at - 6) as u16
    }

    /// The target of an HTTPS or SVCB record in AliasMode, which has the priority 0; `None` in
    /// ServiceMode. It is not compressed (RFC 9460 §2.2).
    pub(crate) fn service_alias(&self) -> Result<Option<WireName<'m>>, Malformed> {
        let mut reader = MessageReader::at(self.data, 0);
        if reader.u16()? != 0 {
            return Ok(None);
        }
        reader.uncompressed_name()?;
        Ok(Some(WireName {
            message: self.owner.message,
            at: self.data_at + 2,
        }))
    }

    /// The name that the record's data consists of (CNAME).
    pub(crate) fn target(&self) -> Result<WireName<'m>, Malformed> {
        let target = WireName {
            // The view ends with the data, so that the name cannot run into the next record.
            message: &self.owner.message[..self.data_at + self.data.len()],
            at: self.data_at,
        };
        match target.end()? == self.data_at + self.data.len() {
            true => Ok(target),
            false => Err(Malformed),
        }
    }
}

impl<'m> WireName<'m> {
    /// The labels, leftmost first, without the root.
    pub(crate) fn labels(self) -> impl Iterator<Item = &'m [u8]> {
        let mut at = self.at;
        std::iter::from_fn(move || {
            loop {
                match NamePart::at(self.message, at)? {
                    NamePart::Label(label) => {
                        at += 1 + label.len();
                        return Some(label);
                    }
                    NamePart::Pointer(target) => at = target,
                    NamePart::Root => return None,
                }
            }
        })
    }

    pub(crate) fn is_root(self) -> bool {
        self.labels().next().is_none()
    }

    /// Whether two names are equal, without regard to the case of ASCII letters (RFC 4343).
    pub(crate) fn same_as(self, other: WireName<'_>) -> bool {
        // Most owner names are pointers to the question's name.
        if std::ptr::eq(self.message.as_ptr(), other.message.as_ptr()) && self.begins_at() == other.begins_at() {
            return true;
        }
        let (mut ours, mut theirs) = (self.labels(), other.labels());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(one), Some(another)) if one.eq_ignore_ascii_case(another) => {}
                _ => return false,
            }
        }
    }

    /// The offset of its first label, after following pointers.
    fn begins_at(self) -> usize {
        let mut at = self.at;
        while let Some(NamePart::Pointer(target)) = NamePart::at(self.message, at) {
            at = target;
        }
        at
    }

    pub(crate) fn to_name(self) -> Name {
        Name::from_wire_labels(self.labels())
    }

    /// Checks the whole name, and returns the offset behind it.
    fn end(self) -> Result<usize, Malformed> {
        let (mut at, mut length, mut pointers) = (self.at, 1, 0);
        let mut end = None;
        loop {
            match NamePart::at(self.message, at).ok_or(Malformed)? {
                NamePart::Root => return Ok(end.unwrap_or(at + 1)),
                NamePart::Label(label) => {
                    at += 1 + label.len();
                    length += 1 + label.len();
                }
                NamePart::Pointer(target) => {
                    // A pointer leads strictly backward (RFC 1035 §4.1.4: "a prior occurrence"),
                    // which rules out loops, and never into the header.
                    if target >= at || target < HEADER {
                        return Err(Malformed);
                    }
                    end.get_or_insert(at + 2);
                    at = target;
                    pointers += 1;
                }
            }
            if length > MAX_NAME || pointers > MAX_POINTERS {
                return Err(Malformed);
            }
        }
    }
}

impl fmt::Debug for WireName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            write!(f, "{}.", label.escape_ascii())?;
        }
        Ok(())
    }
}

/// One element of a name in its wire format.
enum NamePart<'m> {
    Label(&'m [u8]),
    Pointer(usize),
    Root,
}

impl<'m> NamePart<'m> {
    fn at(message: &'m [u8], at: usize) -> Option<Self> {
        let first = *message.get(at)?;
        match first >> 6 {
            0b00 if first == 0 => Some(Self::Root),
            0b00 => message.get(at + 1..at + 1 + usize::from(first)).map(Self::Label),
            0b11 => {
                let second = *message.get(at + 1)?;
                Some(Self::Pointer(usize::from(first & 0x3f) << 8 | usize::from(second)))
            }
            // 0b01 and 0b10 are reserved (RFC 6891 §5 retired the only use).
            _ => None,
        }
    }
}
