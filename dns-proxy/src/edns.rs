//! The OPT record, which is hop by hop (RFC 6891 §6.1.1): what we agree with an upstream is not for
//! the client, and what the client tells us is not for the upstream.

use crate::wire_format::{Header, Malformed, MessageReader, rtype};

/// The option that carries DNS cookies (RFC 7873 §4).
pub(crate) const COOKIE: u16 = 10;

/// The UDP payload that we take (the DNS flag day's 1,232: fits any path unfragmented).
pub(crate) const OUR_UDP_SIZE: u16 = 1_232;

/// The option that pads a message (RFC 7830 §3).
pub(crate) const PADDING: u16 = 12;

/// Options that are hop by hop, so that no answer depends on them:
/// COOKIE, and edns-tcp-keepalive (RFC 7828) and Padding (RFC 7830).
const BETWEEN_NEIGHBOURS: [u16; 3] = [COOKIE, 11, PADDING];

/// Root, type, class, TTL and length.
const FIXED: usize = 11;

/// An OPT record, in place.
pub(crate) struct OptRecord<'m> {
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
pub(crate) fn find(message: &[u8]) -> Result<Option<OptRecord<'_>>, Malformed> {
    let header = Header::read(message)?;
    if header.additionals == 0 {
        return Ok(None);
    }
    let mut reader = additional_section(message, &header)?;
    for before in 0..header.additionals {
        let at = reader.position();
        let record = reader.record()?;
        if record.rtype == rtype::OPT {
            return Ok(Some(OptRecord {
                at,
                before,
                options: record.data,
                rcode: (record.ttl >> 24) as u8,
            }));
        }
    }
    Ok(None)
}

/// At the first additional record.
fn additional_section<'m>(message: &'m [u8], header: &Header) -> Result<MessageReader<'m>, Malformed> {
    let mut reader = MessageReader::after_header(message);
    for _ in 0..header.questions {
        reader.question()?;
    }
    for _ in 0..u32::from(header.answers) + u32::from(header.authorities) {
        reader.record()?;
    }
    Ok(reader)
}

impl OptRecord<'_> {
    /// The data of the first option of this kind.
    pub(crate) fn option(&self, code: u16) -> Result<Option<&[u8]>, Malformed> {
        option(self.options, code)
    }
}

/// The data of the first option of this kind among these. All must be readable.
pub(crate) fn option(data: &[u8], code: u16) -> Result<Option<&[u8]>, Malformed> {
    let mut first = None;
    for option in options(data) {
        let (found, data) = option?;
        if found == code {
            first.get_or_insert(data);
        }
    }
    Ok(first)
}

/// Whether an answer may depend on any of these options.
pub(crate) fn matter(data: &[u8]) -> Result<bool, Malformed> {
    let mut any = false;
    for option in options(data) {
        any |= !BETWEEN_NEIGHBOURS.contains(&option?.0);
    }
    Ok(any)
}

/// Makes a message fit for its next hop: removes the cookie and the padding that were for us, adds
/// the receiver's cookie, and removes OPT if the receiver sent none (`has_opt`).
///
/// Where the message changes, all records behind OPT are dropped: additional records are optional,
/// and names in them may point at bytes that move.
pub(crate) fn hand_on(message: &mut Vec<u8>, has_opt: bool, cookie: Option<&[u8]>) -> Result<(), Malformed> {
    let mut opt = Vec::new();
    let (at, before) = match find(message)? {
        None if !has_opt || cookie.is_none() => return Ok(()),
        None => {
            let header = Header::read(message)?;
            let mut reader = additional_section(message, &header)?;
            for _ in 0..header.additionals {
                reader.record()?;
            }
            opt.push(0);
            opt.extend(
                [rtype::OPT, OUR_UDP_SIZE, 0, 0, 0]
                    .into_iter()
                    .flat_map(u16::to_be_bytes),
            );
            (reader.position(), header.additionals)
        }
        Some(found) if has_opt => {
            let is_clean = found.option(COOKIE)?.is_none() && found.option(PADDING)?.is_none();
            if is_clean && cookie.is_none() {
                return Ok(());
            }
            opt.extend_from_slice(&message[found.at..found.at + FIXED]);
            for option in options(found.options) {
                let (code, data) = option?;
                if code != COOKIE && code != PADDING {
                    push_option(&mut opt, code, data);
                }
            }
            (found.at, found.before)
        }
        Some(found) => {
            let (at, before) = (found.at, found.before);
            message.truncate(at);
            message[10..12].copy_from_slice(&before.to_be_bytes());
            return Ok(());
        }
    };
    if let Some(cookie) = cookie {
        push_option(&mut opt, COOKIE, cookie);
    }
    let length = u16::try_from(opt.len() - FIXED).map_err(|_| Malformed)?;
    let additionals = before.checked_add(1).ok_or(Malformed)?;
    opt[FIXED - 2..FIXED].copy_from_slice(&length.to_be_bytes());
    message.truncate(at);
    message.extend_from_slice(&opt);
    message[10..12].copy_from_slice(&additionals.to_be_bytes());
    Ok(())
}

/// Appends an option; none of ours is longer than 40 octets, and none that was read longer than
/// 65,535.
pub(crate) fn push_option(to: &mut Vec<u8>, code: u16, data: &[u8]) {
    to.extend_from_slice(&code.to_be_bytes());
    to.extend_from_slice(&(data.len() as u16).to_be_bytes());
    to.extend_from_slice(data);
}

fn options(data: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    let mut reader = MessageReader::at(data, 0);
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
        push_option(&mut both, COOKIE, b"another");
        push_option(&mut other, 15, b"why");
        let mut message = with_opt(&answer, &both);
        assert_eq!(
            find(&message).unwrap().unwrap().option(COOKIE),
            Ok(Some(&b"original+servers"[..]))
        );
        hand_on(&mut message, true, None).unwrap();
        assert_eq!(message, with_opt(&answer, &other));
        hand_on(&mut message, false, None).unwrap();
        assert_eq!(message, answer);
        hand_on(&mut message, true, None).unwrap();
        assert_eq!(message, answer);
    }

    #[test]
    fn the_receiver_gets_its_own_cookie_and_other_options_stay() {
        let answer = packets::answer(&packets::query("a.example.", "A"), &["a.example. 60 A 192.0.2.1"]);
        let (mut theirs, mut own, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        push_option(&mut theirs, COOKIE, b"original+servers");
        push_option(&mut theirs, 15, b"why");
        push_option(&mut own, 15, b"why");
        for options in [&mut own, &mut alone] {
            push_option(options, COOKIE, b"clients.+ours...");
        }
        let mut message = with_opt(&answer, &theirs);
        hand_on(&mut message, true, Some(b"clients.+ours...")).unwrap();
        assert_eq!(message, with_opt(&answer, &own));

        let mut message = answer.clone();
        hand_on(&mut message, true, Some(b"clients.+ours...")).unwrap();
        assert_eq!(message, with_opt(&answer, &alone));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(
            counts in any::<[u8; 3]>(),
            body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(41), Just(10), Just(0)], 0..200),
            has_opt in any::<bool>(),
            has_cookie in any::<bool>(),
        ) {
            let mut message = vec![0, 0, 1, 0, 0, counts[0] % 2, 0, counts[1] % 3, 0, 0, 0, counts[2] % 3];
            message.extend(body);
            let cookie = has_cookie.then_some(&b"original+servers"[..]);
            if hand_on(&mut message, has_opt, cookie).is_ok() {
                let once = message.clone();
                hand_on(&mut message, has_opt, cookie).unwrap();
                prop_assert_eq!(once, message);
            }
        }
    }
}
