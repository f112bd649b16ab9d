//! Reading a client's query.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::cookie::{self, Cookies};
use crate::edns;
use crate::question::{DnsQuestion, Transport};
use crate::rcode::Rcode;
use crate::upstream::profile::EdnsLevel;
use crate::wire_format::{HEADER, Header, Malformed, MessageReader, read_question, rtype};

/// Without EDNS, a UDP answer holds no more than this (RFC 1035 §4.2.1).
const UDP_MINIMUM: usize = 512;

/// The largest UDP payload that IPv4 can carry.
const UDP_MAXIMUM: usize = 65_507;

/// A well-formed query: one question, opcode QUERY, nothing behind its last record.
#[derive(Debug)]
pub(crate) struct Query<'p> {
    bytes: QueryBytes<'p>,
    header: Header,
    question: DnsQuestion,
    /// Where the question section ends.
    question_end: usize,
    edns: Option<ClientEdns>,
    /// It carries more than a question and a plain OPT, so that its answer may depend on that.
    has_options: bool,
    cookie: Option<Box<CookieExchange>>,
}

/// The client's cookie and ours. Few queries have one, so it is boxed.
#[derive(Debug)]
struct CookieExchange {
    sent: cookie::ClientCookie,
    /// The cookie that goes with the reply.
    owed: Option<[u8; cookie::LENGTH]>,
}

/// The packet of a query: borrowed from the receive buffer, or owned while the query waits for its
/// answer.
#[derive(Debug)]
enum QueryBytes<'p> {
    Received(&'p [u8]),
    /// Most queries are shorter, and need no allocation.
    Kept(SmallVec<[u8; 96]>),
}

impl QueryBytes<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Received(bytes) => bytes,
            Self::Kept(bytes) => bytes,
        }
    }
}

/// What the client's OPT record says (RFC 6891 §6.1.2–3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    /// The largest UDP payload that the client takes.
    pub(crate) udp_size: u16,
    /// It wants DNSSEC records (the DO bit, RFC 3225).
    pub(crate) dnssec_ok: bool,
}

/// The flags of a plain query that its answer may depend on: RD, AD, CD, and DO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueryFlags(u16);

/// The flags of the header among them.
const WISHES: u16 = Header::RD | Header::AD | Header::CD;

/// DO, where it stands in an OPT record.
const DNSSEC_OK: u16 = 0x8000;

/// Why a packet cannot be handled as a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryError {
    /// Shorter than a header, or itself a response: an answer could start a loop, so it gets none.
    NotAQuery,
    /// It deserves an answer with this code, which can echo nothing but the header.
    Answer(Rcode, Header),
}

impl<'p> Query<'p> {
    pub(crate) fn read(packet: &'p [u8]) -> Result<Self, QueryError> {
        let header = Header::read(packet).map_err(|Malformed| QueryError::NotAQuery)?;
        if header.has(Header::QR) {
            return Err(QueryError::NotAQuery);
        }
        if header.opcode() != 0 {
            return Err(QueryError::Answer(Rcode::NotImp, header));
        }
        let format_error = |Malformed| QueryError::Answer(Rcode::FormErr, header);
        let (question, question_end) = read_question(packet, &header).map_err(format_error)?;
        let AdditionalSection {
            edns,
            has_options,
            cookie,
        } = read_additional(packet, question_end, &header).map_err(format_error)?;
        let cookie = match cookie {
            None => None,
            Some(cookie) => Some(read_cookie(cookie).map_err(format_error)?),
        };
        Ok(Self {
            question: DnsQuestion {
                name: question.name.to_name(),
                qtype: question.qtype,
                qclass: question.qclass,
                takes_reasons: edns.is_some(),
            },
            bytes: QueryBytes::Received(packet),
            header,
            question_end,
            edns,
            has_options,
            cookie,
        })
    }

    /// The same query, independent of the buffer that it was received in.
    pub(crate) fn keep(self) -> Query<'static> {
        Query {
            bytes: QueryBytes::Kept(SmallVec::from_slice(self.bytes.bytes())),
            question: self.question,
            header: self.header,
            question_end: self.question_end,
            edns: self.edns,
            has_options: self.has_options,
            cookie: self.cookie,
        }
    }

    /// A copy that is kept on its own.
    pub(crate) fn again(&self) -> Query<'static> {
        Query {
            bytes: QueryBytes::Kept(SmallVec::from_slice(self.bytes.bytes())),
            question: self.question.clone(),
            header: self.header,
            question_end: self.question_end,
            edns: self.edns,
            has_options: self.has_options,
            cookie: None,
        }
    }

    /// Takes the cookie of `client` out of the packet, if there is one, and has what is said to it
    /// carry the one that it is owed.
    pub(crate) fn take_cookie(&mut self, cookies: &Cookies, client: IpAddr) {
        if let Some(cookie) = &mut self.cookie {
            cookie.owed = cookies.answer(cookie.sent, client);
            let mut bytes = self.bytes.bytes().to_vec();
            // It has been read, so this can be, too.
            let _ = edns::hand_on(&mut bytes, true, None);
            self.bytes = QueryBytes::Kept(SmallVec::from_vec(bytes));
        }
    }

    /// The cookie that goes with what is said to its client.
    pub(crate) fn cookie(&self) -> Option<&[u8]> {
        Some(&self.cookie.as_ref()?.owed.as_ref()?[..])
    }

    /// The client's bytes, without its cookie once that [was taken](Self::take_cookie).
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    pub(crate) fn question(&self) -> &DnsQuestion {
        &self.question
    }

    pub(crate) fn header(&self) -> Header {
        self.header
    }

    /// Whether it carries anything that an answer may depend on besides the question, flags, and
    /// whether OPT and DO are there.
    pub(crate) fn has_options(&self) -> bool {
        self.has_options
    }

    pub(crate) fn edns(&self) -> Option<ClientEdns> {
        self.edns
    }

    /// The question section, byte for byte. Nothing in it is compressed: there is no name before it
    /// to point at.
    pub(crate) fn question_section(&self) -> &[u8] {
        &self.as_bytes()[HEADER..self.question_end]
    }

    /// What tells it from other queries with this question, none of which [has
    /// options](Self::has_options).
    pub(crate) fn flags(&self) -> QueryFlags {
        QueryFlags(self.header.flags & WISHES | self.dnssec_ok())
    }

    /// The query as it is put to an upstream over UDP, under id 0: with an OPT of ours, which is
    /// between neighbours (RFC 6891 §6.1.1). Its size is what passes any path unfragmented,
    /// whatever the client takes: a fragment is easier to forge than an answer.
    pub(crate) fn write_for(&self, level: EdnsLevel, cookie: &[u8], room: &mut Vec<u8>) {
        let has_opt = self.edns.is_some() || level > EdnsLevel::Plain;
        let header = [0, self.header.flags & WISHES, 1, 0, 0, u16::from(has_opt)];
        room.clear();
        room.extend(header.into_iter().flat_map(u16::to_be_bytes));
        room.extend_from_slice(self.question_section());
        if has_opt {
            let options = match level {
                EdnsLevel::Cookies => 4 + cookie.len() as u16,
                EdnsLevel::Edns | EdnsLevel::Plain => 0,
            };
            room.push(0);
            let fixed = [rtype::OPT, edns::OUR_UDP_SIZE, 0, self.dnssec_ok(), options];
            room.extend(fixed.into_iter().flat_map(u16::to_be_bytes));
            if options > 0 {
                edns::push_option(room, edns::COOKIE, cookie);
            }
        }
    }

    fn dnssec_ok(&self) -> u16 {
        match self.edns {
            Some(edns) if edns.dnssec_ok => DNSSEC_OK,
            _ => 0,
        }
    }

    /// The client's bytes under another id, for an upstream.
    pub(crate) fn with_id(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.as_bytes().to_vec();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    /// Whether it asks for a whole zone, which no pod has business to.
    pub(crate) fn is_zone_transfer(&self) -> bool {
        matches!(self.question.qtype, rtype::AXFR | rtype::IXFR)
    }

    /// The largest answer that the client takes.
    pub(crate) fn answer_limit(&self, transport: Transport) -> usize {
        match (transport, self.edns) {
            (Transport::Udp, None) => UDP_MINIMUM,
            (Transport::Udp, Some(edns)) => usize::from(edns.udp_size).clamp(UDP_MINIMUM, UDP_MAXIMUM),
            _ => usize::from(u16::MAX),
        }
    }
}

/// What stands behind the question of a query.
struct AdditionalSection<'p> {
    edns: Option<ClientEdns>,
    /// Anything beside a plain OPT and a cookie.
    has_options: bool,
    cookie: Option<&'p [u8]>,
}

/// Walks the rest of the query, which must end with its last record, and finds OPT.
fn read_additional<'p>(
    packet: &'p [u8],
    question_end: usize,
    header: &Header,
) -> Result<AdditionalSection<'p>, Malformed> {
    let mut reader = MessageReader::at(packet, question_end);
    let records = u32::from(header.answers) + u32::from(header.authorities);
    let mut has_options = records > 0;
    for _ in 0..records {
        reader.record()?;
    }
    let (mut found, mut cookie) = (None, None);
    for _ in 0..header.additionals {
        // With anything behind OPT (a signature, RFC 8945) the query stays as it is, and the cookie
        // is the upstream's business.
        has_options |= cookie.take().is_some();
        let record = reader.record()?;
        if record.rtype != rtype::OPT {
            has_options = true;
            continue;
        }
        // One, and owned by the root (RFC 6891 §6.1.1 and §6.1.2).
        if found.is_some() || !record.owner.is_root() {
            return Err(Malformed);
        }
        // An option that an answer may depend on, another version, or a flag other than DO.
        has_options |= edns::matter(record.data)? || record.ttl & !0x8000 != 0;
        cookie = edns::option(record.data, edns::COOKIE)?;
        found = Some(ClientEdns {
            udp_size: record.class,
            dnssec_ok: record.ttl & 0x8000 != 0,
        });
    }
    match reader.is_at_the_end() {
        true => Ok(AdditionalSection {
            edns: found,
            has_options,
            cookie,
        }),
        false => Err(Malformed),
    }
}

#[cold]
fn read_cookie(cookie: &[u8]) -> Result<Box<CookieExchange>, Malformed> {
    let sent = cookie::ClientCookie::read(cookie)?;
    Ok(Box::new(CookieExchange { sent, owed: None }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packets;

    fn rcode(packet: &[u8]) -> Option<Rcode> {
        match Query::read(packet) {
            Err(QueryError::Answer(rcode, _)) => Some(rcode),
            _ => None,
        }
    }

    #[test]
    fn a_query_is_read_and_its_own_bytes_are_kept() {
        let packet = packets::query_with_edns("WwW.Example.", "AAAA", 1_400);
        let query = Query::read(&packet).unwrap();
        assert_eq!(query.question().name.as_str(), "www.example.");
        assert_eq!((query.question().qtype, query.question().qclass), (28, 1));
        assert_eq!(query.answer_limit(Transport::Udp), 1_400);
        let forwarded = query.with_id(0xbeef);
        assert_eq!((&forwarded[..2], &forwarded[2..]), (&[0xbe, 0xef][..], &packet[2..]));
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        assert_eq!(Query::read(&[0; 11]).unwrap_err(), QueryError::NotAQuery);
        let query = packets::query("a.example.", "A");
        let response = packets::answer(&query, &[]);
        assert_eq!(Query::read(&response).unwrap_err(), QueryError::NotAQuery);
    }

    #[test]
    fn other_opcodes_are_not_implemented() {
        let mut packet = packets::query("a.example.", "A");
        packet[2] = 0x28; // UPDATE
        assert_eq!(rcode(&packet), Some(Rcode::NotImp));
    }

    #[test]
    fn format_errors_are_named_as_such() {
        let query = packets::query("a.example.", "A");
        let edns = packets::query_with_edns("a.example.", "A", 1_232);
        let opt = &edns[query.len()..];
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = query.clone();
            change(&mut packet);
            packet
        };
        let broken = [
            ("no question", with(&|packet| packet[5] = 0)),
            ("two questions", with(&|packet| packet[5] = 2)),
            ("a question cut short", query[..query.len() - 1].to_vec()),
            ("trailing garbage", with(&|packet| packet.push(0))),
            ("a reserved label type", with(&|packet| packet[12] = 0x41)),
            (
                "a name that points at itself",
                with(&|packet| packet[12..14].copy_from_slice(&[0xc0, 12])),
            ),
            (
                "a name that points into the header",
                with(&|packet| packet[12..14].copy_from_slice(&[0xc0, 4])),
            ),
            ("an additional record that is not there", with(&|packet| packet[11] = 1)),
            (
                "two OPT records",
                with(&|packet| {
                    packet.extend_from_slice(opt);
                    packet.extend_from_slice(opt);
                    packet[11] = 2;
                }),
            ),
            ("an OPT cut short", edns[..edns.len() - 1].to_vec()),
        ];
        for (what, packet) in broken {
            assert_eq!(rcode(&packet), Some(Rcode::FormErr), "{what}");
        }
    }

    #[test]
    fn a_client_takes_what_it_says_and_512_octets_at_least() {
        let limit = |packet: &[u8]| Query::read(packet).unwrap().answer_limit(Transport::Udp);
        assert_eq!(limit(&packets::query("a.example.", "A")), 512);
        assert_eq!(limit(&packets::query_with_edns("a.example.", "A", 100)), 512);
        assert_eq!(
            limit(&packets::query_with_edns("a.example.", "A", u16::MAX)),
            UDP_MAXIMUM
        );
    }

    #[test]
    fn an_answer_belongs_to_its_question_only() {
        let packet = packets::query("a.example.", "A");
        let query = Query::read(&packet).unwrap();
        let belongs = |answer: &[u8]| query.is_answered_by(0x1234, answer);
        let answer = packets::answer(&packet, &["a.example. 60 A 192.0.2.1"]);
        assert!(belongs(&answer));
        assert!(
            belongs(&packets::answer(&packets::query("A.EXAMPLE.", "A"), &[])),
            "case is folded"
        );

        assert!(!query.is_answered_by(0x1235, &answer), "another id");
        assert!(!belongs(&packet), "a query");
        assert!(!belongs(&answer[..11]), "less than a header");
        assert!(
            !belongs(&packets::answer(&packets::query("b.example.", "A"), &[])),
            "another name"
        );
        assert!(
            !belongs(&packets::answer(&packets::query("a.example.", "AAAA"), &[])),
            "another type"
        );
        let mut class = answer.clone();
        class[packet.len() - 1] = 3;
        assert!(!belongs(&class), "another class");
        let mut none = answer.clone();
        none[5] = 0;
        assert!(!belongs(&none), "no question");
        let bare = |code: u8| [0x12, 0x34, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(
            [1, 2, 4, 5].iter().all(|code| belongs(&bare(*code))),
            "an error without a question"
        );
        assert!(!belongs(&bare(0)) && !belongs(&bare(3)), "these speak of a name");
        assert!(!query.is_answered_by(0x1235, &bare(1)), "an error under another id");
        let mut with_records = none.clone();
        with_records[3] |= 1;
        assert!(!belongs(&with_records), "an error with records, and no question");
        let mut opcode = answer;
        opcode[2] |= 0x28;
        assert!(!belongs(&opcode), "another opcode");
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Query::read(&packet);
        }

        /// Noise behind a header that lets it be read.
        #[test]
        fn no_body_makes_it_panic(
            counts in any::<[u8; 3]>(),
            body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), Just(12), Just(0)], 0..600),
        ) {
            let mut packet = vec![0, 0, 1, 0, 0, 1, 0, counts[0] % 4, 0, counts[1] % 4, 0, counts[2] % 4];
            packet.extend(body);
            if let Ok(query) = Query::read(&packet) {
                prop_assert!(query.question_section().len() >= 5);
            }
        }
    }
}
