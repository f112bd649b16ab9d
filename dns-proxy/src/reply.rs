//! Replies to clients, and the only two ways to make one.
//!
//! A [`ClientReply`] either holds no records that we did not write ourselves (a refusal, an error),
//! or it is an upstream's answer, [`HeldAnswer`] until somebody hands over the gate's proof that
//! the kernel has what the answer needs. There is no third way, so no code path can release an
//! answer that was not committed.

use std::borrow::Cow;

use crate::client_query::Query;
use crate::edns;
use crate::gate::Gate;
use crate::question::Transport;
use crate::rcode::Rcode;
use crate::wire_format::{HEADER, Header, MessageReader, rtype};

/// The longest extra text. With it, the longest question, a cookie and everything else, a reply has
/// 512 octets at most.
const MAX_TEXT: usize = 180;

/// The EDNS option of an extended error (RFC 8914 §2).
const EDE_OPTION: u16 = 15;

/// The bytes of a reply, in a buffer that is reused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientReply<'b> {
    bytes: &'b [u8],
}

/// An upstream's answer that is held back until its addresses are committed.
#[derive(Debug)]
pub(crate) struct HeldAnswer<'a> {
    bytes: Cow<'a, [u8]>,
}

/// An extended error (RFC 8914): the reason why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtendedError<'t> {
    pub(crate) code: ExtendedErrorCode,
    pub(crate) text: &'t str,
}

/// The codes that we use, of RFC 8914 §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtendedErrorCode {
    Other = 0,
    NotReady = 14,
    Blocked = 15,
    NotSupported = 21,
    NoReachableAuthority = 22,
    NetworkError = 23,
}

impl<'a> HeldAnswer<'a> {
    /// Takes an upstream's answer that belongs to the question.
    pub(crate) fn new(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { bytes: bytes.into() }
    }

    /// Takes an error that was sent without a question, and puts the client's into it: stub
    /// resolvers look for it. OPT stays if it is there alone, since its absence tells a client to
    /// ask without.
    pub(crate) fn bare_error(query: &Query<'_>, header: &Header, bytes: &[u8]) -> HeldAnswer<'static> {
        let opt = bytes.get(HEADER..).filter(|rest| {
            let mut reader = MessageReader::at(rest, 0);
            let record = reader.record();
            record.is_ok_and(|record| record.rtype == rtype::OPT) && reader.is_at_the_end()
        });
        let mut room = Vec::new();
        push_all(&mut room, [header.id, header.flags, 1, 0, 0, u16::from(opt.is_some())]);
        room.extend_from_slice(query.question_section());
        room.extend_from_slice(opt.unwrap_or_default());
        HeldAnswer { bytes: room.into() }
    }

    /// The bytes, to read. The way out is [`release`](Self::release).
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same answer, independent of the buffer that it was received in.
    pub(crate) fn keep(self) -> HeldAnswer<'static> {
        HeldAnswer {
            bytes: Cow::Owned(self.bytes.into_owned()),
        }
    }

    /// Gives the answer away, as the upstream made it but for the client's id and its spelling of
    /// the question, and truncated when it is longer than the client takes. The proof is used up:
    /// one commit, one answer.
    pub(crate) fn release<'b, G: Gate>(
        self,
        query: &Query<'_>,
        transport: Transport,
        proof: G::Proof,
        room: &'b mut Vec<u8>,
    ) -> ClientReply<'b> {
        drop(proof);
        room.clear();
        room.extend_from_slice(&self.bytes);
        // Another lookup may have asked, and spelled it otherwise. Equal names have equal lengths.
        let question = query.question_section();
        if let Some(place) = room.get_mut(HEADER..HEADER + question.len()) {
            place.copy_from_slice(question);
        }
        // What cannot be read was not validated, and is not here.
        let _ = edns::hand_on(room, query.edns().is_some(), query.cookie());
        if room.len() > query.answer_limit(transport) {
            truncated(&self.bytes, query, room);
        }
        room[..2].copy_from_slice(&query.header().id.to_be_bytes());
        ClientReply::of(room)
    }
}

impl<'b> ClientReply<'b> {
    /// No answer, for a reason. NXDOMAIN comes without an SOA, so that nobody caches it (RFC 2308
    /// §5).
    pub(crate) fn without_answer(
        query: &Query<'_>,
        rcode: Rcode,
        error: Option<&ExtendedError<'_>>,
        room: &'b mut Vec<u8>,
    ) -> Self {
        let header = query.header();
        let flags = Header::QR | header.flags & (Header::RD | Header::CD) | Header::RA | u16::from(rcode.code());
        without_records(query, flags, error, room);
        Self::of(room)
    }

    /// For a packet of which nothing but the header can be read.
    pub(crate) fn to_unreadable(header: Header, rcode: Rcode, room: &'b mut Vec<u8>) -> Self {
        Self::header_alone(header, u16::from(rcode.code()), room)
    }

    /// For a query that is longer than is taken over UDP: the client comes back over TCP (RFC 2181
    /// §9).
    pub(crate) fn to_overlong(header: Header, room: &'b mut Vec<u8>) -> Self {
        Self::header_alone(header, Header::TC, room)
    }

    fn header_alone(header: Header, flags: u16, room: &'b mut Vec<u8>) -> Self {
        let opcode = header.opcode() << 11;
        let flags = Header::QR | opcode | header.flags & Header::RD | Header::RA | flags;
        room.clear();
        push_all(room, [header.id, flags, 0, 0, 0, 0]);
        Self::of(room)
    }

    fn of(room: &'b [u8]) -> Self {
        Self { bytes: room }
    }

    /// The same reply, independent of the buffer.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The lower four bits of the response code.
    pub(crate) fn rcode(&self) -> u8 {
        self.bytes.get(3).map_or(0, |flags| flags & 0xf)
    }
}

/// Says that there is more, and nothing of it: the client comes back over TCP (RFC 2181 §9).
fn truncated(answer: &[u8], query: &Query<'_>, room: &mut Vec<u8>) {
    let flags = Header::read(answer).map_or(Header::QR, |header| header.flags);
    without_records(query, flags | Header::TC, None, room);
}

/// A message with the client's id and question, and OPT if the client sent one (RFC 6891 §6.1.1).
fn without_records(query: &Query<'_>, flags: u16, error: Option<&ExtendedError<'_>>, bytes: &mut Vec<u8>) {
    let edns = query.edns();
    bytes.clear();
    push_all(bytes, [query.header().id, flags, 1, 0, 0, u16::from(edns.is_some())]);
    bytes.extend_from_slice(query.question_section());
    if let Some(edns) = edns {
        bytes.push(0);
        let dnssec_ok = u16::from(edns.dnssec_ok) << 15;
        push_all(bytes, [rtype::OPT, edns::OUR_UDP_SIZE, 0, dnssec_ok, 0]);
        let options_at = bytes.len();
        if let Some(error) = error {
            let text = clip(error.text);
            // At most MAX_TEXT, so it cannot overflow.
            let length = text.len() as u16;
            push_all(bytes, [EDE_OPTION, length + 2, error.code as u16]);
            bytes.extend_from_slice(text.as_bytes());
        }
        if let Some(cookie) = query.cookie() {
            edns::push_option(bytes, edns::COOKIE, cookie);
        }
        let length = (bytes.len() - options_at) as u16;
        bytes[options_at - 2..options_at].copy_from_slice(&length.to_be_bytes());
    }
}

/// As many whole characters as fit into [`MAX_TEXT`] octets.
fn clip(text: &str) -> &str {
    let ends = text
        .char_indices()
        .map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|end| *end <= MAX_TEXT).last().unwrap_or(0);
    &text[..end]
}

fn push_all<const N: usize>(bytes: &mut Vec<u8>, words: [u16; N]) {
    for word in words {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};

    use super::*;
    use crate::packets;

    fn blocked(text: &str) -> ExtendedError<'_> {
        ExtendedError {
            code: ExtendedErrorCode::Blocked,
            text,
        }
    }

    #[test]
    fn a_refusal_echoes_the_question_as_the_client_spelled_it() {
        let packet = packets::query("WwW.eXample.", "A");
        let query = Query::read(&packet).unwrap();
        let mut room = Vec::new();
        let reply = ClientReply::without_answer(
            &query,
            Rcode::NxDomain,
            Some(&blocked("no policy allows it")),
            &mut room,
        );
        assert_eq!(
            reply.as_bytes()[HEADER..],
            packet[HEADER..],
            "question, and nothing behind it without EDNS"
        );
        let message = Message::from_vec(reply.as_bytes()).unwrap();
        assert_eq!(message.metadata.id, 0x1234);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
        assert!(!message.metadata.authoritative && message.authorities.is_empty());
    }

    #[test]
    fn a_client_that_speaks_edns_is_told_why() {
        let packet = packets::query_with_edns("a.example.", "A", 1_232);
        let query = Query::read(&packet).unwrap();
        let mut room = Vec::new();
        let reply =
            ClientReply::without_answer(&query, Rcode::Refused, Some(&blocked("no policy allows it")), &mut room);
        let told = packets::extended_error(reply.as_bytes());
        assert_eq!(told, Some((15, "no policy allows it".into())));
    }

    #[test]
    fn the_longest_refusal_fits_a_client_of_512_octets() {
        let name = format!("{}{}.", format!("{}.", "x".repeat(63)).repeat(3), "x".repeat(61));
        let mut packet = packets::query_with_edns(&name, "A", 512);
        edns::hand_on(&mut packet, true, Some(&[7; 40])).unwrap();
        let mut query = Query::read(&packet).unwrap();
        query.take_cookie(&crate::cookie::Cookies::new(), [10, 0, 0, 1].into());
        let (text, mut room) = ("ö".repeat(500), Vec::new());
        let reply = ClientReply::without_answer(&query, Rcode::NxDomain, Some(&blocked(&text)), &mut room);
        assert!(query.cookie().is_some() && reply.as_bytes().len() <= 512);
        let (_, text) = packets::extended_error(reply.as_bytes()).unwrap();
        assert_eq!(text, "ö".repeat(MAX_TEXT / 2), "cut between characters");
    }

    #[test]
    fn a_packet_that_cannot_be_read_gets_its_header_back() {
        let mut packet = packets::query("a.example.", "A");
        packet[2] |= 0x28;
        let header = Header::read(&packet).unwrap();
        let mut room = Vec::new();
        let reply = ClientReply::to_unreadable(header, Rcode::NotImp, &mut room);
        assert_eq!(reply.as_bytes(), [0x12, 0x34, 0xa9, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reply.rcode(), 4);
    }
}
