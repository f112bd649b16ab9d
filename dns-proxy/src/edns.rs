//! The OPT record of an answer, which is between neighbours (RFC 6891 §6.1.1): what we and an upstream
//! have agreed is not what a client has asked for.

use crate::wire::{Header, Malformed, Reader, rtype};

/// The option that carries DNS cookies (RFC 7873 §4).
pub(crate) const COOKIE: u16 = 10;

/// The option that pads a message (RFC 7830 §3).
pub(crate) const PADDING: u16 = 12;

/// Options that concern a sender and its neighbour alone, so that no answer depends on them: COOKIE, and edns-tcp-keepalive (RFC 7828)
/// and Padding (RFC 7830).
const BETWEEN_NEIGHBOURS: [u16; 3] = [COOKIE, 11, PADDING];

/// Root, type, class, TTL and length.
const FIXED: usize = 11;

/// An OPT record, in place.
pub(crate) struct Opt<'m> {
    /// Where it begins.
    at: usize,
    /// Additional records before it.
    before: u16,
    /// Code, length and data of each option.
    options: &'m [u8],
    /// The upper eight bits of the response code.
    pub(crate) rcode: u8,
}

/// The OPT record of a message, if it has one.
pub(crate) fn find(message: &[u8]) -> Result<Option<Opt<'_>>, Malformed> {
    let header = Header::read(message)?;
    if header.additionals == 0 {
        return Ok(None);
    }
    let mut reader = Reader::after_header(message);
    for _ in 0..header.questions {
        reader.question()?;
    }
    for _ in 0..u32::from(header.answers) + u32::from(header.authorities) {
        reader.record()?;
    }
    for before in 0..header.additionals {
        let at = reader.position();
        let record = reader.record()?;
        if record.rtype == rtype::OPT {
            return Ok(Some(Opt {
                at,
                before,
                options: record.data,
                rcode: (record.ttl >> 24) as u8,
            }));
        }
    }
    Ok(None)
}

impl Opt<'_> {
    /// The data of the first option of this kind.
    pub(crate) fn option(&self, code: u16) -> Result<Option<&[u8]>, Malformed> {
        for option in options(self.options) {
            let (found, data) = option?;
            if found == code {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Whether an answer may depend on any of these options.
pub(crate) fn matter(data: &[u8]) -> Result<bool, Malformed> {
    let mut any = false;
    for option in options(data) {
        any |= !BETWEEN_NEIGHBOURS.contains(&option?.0);
    }
    Ok(any)
}

/// Takes out of an answer what its client has no part in: OPT itself if the client sent none, or else the cookie and
/// what pads it.
///
/// What stands behind OPT is left out too: additional records are a courtesy, and names in them may point at what moves.
pub(crate) fn strip(message: &mut Vec<u8>, keeps_opt: bool) -> Result<(), Malformed> {
    let Some(opt) = find(message)? else {
        return Ok(());
    };
    let (at, before) = (opt.at, opt.before);
    if !keeps_opt {
        message.truncate(at);
        message[10..12].copy_from_slice(&before.to_be_bytes());
        return Ok(());
    }
    if opt.option(COOKIE)?.is_none() && opt.option(PADDING)?.is_none() {
        return Ok(());
    }
    let mut kept = message[at..at + FIXED].to_vec();
    for option in options(opt.options) {
        let (code, data) = option?;
        if code != COOKIE && code != PADDING {
            push_option(&mut kept, code, data);
        }
    }
    // No longer than what it was.
    let length = (kept.len() - FIXED) as u16;
    kept[FIXED - 2..]
        .first_chunk_mut::<2>()
        .ok_or(Malformed)?
        .copy_from_slice(&length.to_be_bytes());
    message.truncate(at);
    message.extend_from_slice(&kept);
    message[10..12].copy_from_slice(&(before + 1).to_be_bytes());
    Ok(())
}

/// Appends an option; none of ours is longer than 40 octets, and none that was read longer than 65,535.
pub(crate) fn push_option(to: &mut Vec<u8>, code: u16, data: &[u8]) {
    to.extend_from_slice(&code.to_be_bytes());
    to.extend_from_slice(&(data.len() as u16).to_be_bytes());
    to.extend_from_slice(data);
}

fn options(data: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    let mut reader = Reader::at(data, 0);
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken || reader.is_at_the_end() {
            return None;
        }
        let mut option = || {
            let (code, length) = (reader.u16()?, reader.u16()?);
            Ok((code, reader.take(usize::from(length))?))
        };
        let read = option();
        broken = read.is_err();
        Some(read)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packets;

    fn with_opt(message: &[u8], options: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        message[11] += 1;
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, options.len() as u8]);
        message.extend(options);
        message
    }

    #[test]
    fn what_was_agreed_with_the_upstream_is_not_what_the_client_gets() {
        let answer = packets::answer(&packets::query("a.example.", "A"), &["a.example. 60 A 192.0.2.1"]);
        let (mut both, mut other) = (Vec::new(), Vec::new());
        push_option(&mut both, COOKIE, b"original+servers");
        push_option(&mut both, 15, b"why");
        push_option(&mut other, 15, b"why");
        let mut message = with_opt(&answer, &both);
        assert_eq!(
            find(&message).unwrap().unwrap().option(COOKIE),
            Ok(Some(&b"original+servers"[..]))
        );
        strip(&mut message, true).unwrap();
        assert_eq!(message, with_opt(&answer, &other));
        strip(&mut message, false).unwrap();
        assert_eq!(message, answer);
        strip(&mut message, true).unwrap();
        assert_eq!(message, answer);
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(
            counts in any::<[u8; 3]>(),
            body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(41), Just(10), Just(0)], 0..200),
            keeps_opt in any::<bool>(),
        ) {
            let mut message = vec![0, 0, 1, 0, 0, counts[0] % 2, 0, counts[1] % 3, 0, 0, 0, counts[2] % 3];
            message.extend(body);
            let _ = strip(&mut message, keeps_opt);
        }
    }
}
