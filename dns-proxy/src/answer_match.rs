//! Whether a message is the answer to a query.

use crate::client_query::Query;
use crate::wire_format::{HEADER, Header, MessageReader, read_question, rtype};

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

impl Query<'_> {
    /// Whether `answer` is the answer to this query as it was sent under `id`.
    pub(crate) fn is_answered_by(&self, id: u16, answer: &[u8]) -> bool {
        let Ok(header) = Header::read(answer) else {
            return false;
        };
        header.id == id
            && header.has(Header::QR)
            && header.opcode() == 0
            && (self.is_echoed_by(answer, &header)
                || self.asks_the_same_as(answer, &header)
                || is_bare_error(answer, &header))
    }

    /// Whether an answer has the one question, byte for byte: so most have.
    fn is_echoed_by(&self, answer: &[u8], header: &Header) -> bool {
        header.questions == 1
            && answer
                .get(HEADER..)
                .is_some_and(|rest| rest.starts_with(self.question_section()))
    }

    fn asks_the_same_as(&self, answer: &[u8], header: &Header) -> bool {
        match (
            read_question(answer, header),
            MessageReader::after_header(self.as_bytes()).question(),
        ) {
            (Ok((theirs, _)), Ok(ours)) => {
                theirs.qtype == ours.qtype && theirs.qclass == ours.qclass && theirs.name.same_as(ours.name)
            }
            _ => false,
        }
    }
}

/// Whether it is an error that its server repeats no question with, as servers do that cannot read
/// the query (FORMERR, NOTIMP, BADVERS of old ones). It holds no records, so it can teach nothing.
pub(crate) fn is_bare_error(answer: &[u8], header: &Header) -> bool {
    if (header.questions, header.answers, header.authorities) != (0, 0, 0) {
        return false;
    }
    // The upper bits stand in OPT (RFC 6891 §6.1.3).
    let extended = || {
        MessageReader::after_header(answer)
            .record()
            .is_ok_and(|record| record.rtype == rtype::OPT && record.ttl >> 24 != 0)
    };
    match header.rcode() {
        // Both speak of a name.
        NOERROR | NXDOMAIN => header.additionals > 0 && extended(),
        _ => true,
    }
}
