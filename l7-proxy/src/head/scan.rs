//! Where a head ends.

use memchr::{memchr, memchr_iter};

use super::error::HeadError;

/// Finds the empty line. Looks at each octet once, however the head is cut into segments.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    scanned: usize,
}

impl HeadScanner {
    /// The length of the head with its empty line; `None` while it is not whole. `input` begins
    /// where the head begins, and holds the octets of former calls too.
    pub(crate) fn end(&mut self, input: &[u8], limit: usize) -> Result<Option<usize>, HeadError> {
        if let [b'\n', ..] | [b'\r', b'\n', ..] = input {
            return Err(HeadError::LeadingEmptyLine);
        }
        let begin = self.scanned.min(input.len());
        for found in memchr_iter(b'\n', &input[begin..]) {
            let at = begin + found;
            // The first octet is none, so there is one before.
            if input[at - 1] != b'\r' {
                return Err(HeadError::BareLineEnd);
            }
            if at >= 3 && input[at - 2] == b'\n' {
                let end = at + 1;
                return match end > limit {
                    true => Err(HeadError::TooLong),
                    false => check_carriage_returns(&input[..end]).map(|()| Some(end)),
                };
            }
        }
        self.scanned = input.len();
        match input.len() > limit {
            true => Err(HeadError::TooLong),
            false => Ok(None),
        }
    }
}

fn check_carriage_returns(head: &[u8]) -> Result<(), HeadError> {
    let mut rest = head;
    while let Some(at) = memchr(b'\r', rest) {
        if rest.get(at + 1) != Some(&b'\n') {
            return Err(HeadError::BareLineEnd);
        }
        rest = &rest[at + 2..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(input: &[u8]) -> Result<Option<usize>, HeadError> {
        HeadScanner::default().end(input, 100)
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n"), Ok(Some(27)));
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(end(b""), Ok(None));
    }

    #[test]
    fn octet_by_octet_it_ends_at_the_same_place() {
        let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        let mut scanner = HeadScanner::default();
        let found = (1..=input.len()).find_map(|length| scanner.end(&input[..length], 100).unwrap());
        assert_eq!(found, Some(27));
    }

    #[test]
    fn other_line_ends_are_refused() {
        for (input, error) in [
            (&b"\r\nGET"[..], HeadError::LeadingEmptyLine),
            (b"\nGET", HeadError::LeadingEmptyLine),
            (b"GET / HTTP/1.1\nHost", HeadError::BareLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", HeadError::BareLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", HeadError::BareLineEnd),
            (b"GET / HTTP/1.1\r\nA: a\rb\r\n\r\n", HeadError::BareLineEnd),
            (b"GET / HTTP/1.1\r\nA: a\r\r\n\r\n", HeadError::BareLineEnd),
        ] {
            assert_eq!(end(input), Err(error), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_head_over_the_limit_is_refused_whole_or_not() {
        let mut head = [b'a'; 101].to_vec();
        assert_eq!(end(&head), Err(HeadError::TooLong));
        head[97..].copy_from_slice(b"\r\n\r\n");
        assert_eq!(end(&head), Err(HeadError::TooLong));
        head.remove(0);
        assert_eq!(end(&head), Ok(Some(100)));
    }
}
