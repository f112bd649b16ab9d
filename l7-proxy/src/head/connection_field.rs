//! The Connection field (RFC 9110 §7.6.1).

use super::error::HeadError;

/// What the options of all Connection fields say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

/// Options whose fields are for the next hop alone, so that naming them hides nothing.
const HOP_BY_HOP: [&str; 5] = ["http2-settings", "proxy-connection", "te", "trailer", "trailers"];

impl ConnectionOptions {
    /// Reads one Connection field. `has_field` says whether the header has a field of that name: an
    /// option that names one would let whoever is behind us drop what was judged.
    pub(crate) fn read(&mut self, value: &[u8], has_field: impl Fn(&str) -> bool) -> Result<(), HeadError> {
        let value = str::from_utf8(value).map_err(|_| HeadError::ConnectionOption)?;
        for option in value.split(',') {
            let option = option.trim_matches([' ', '\t']);
            match option {
                // RFC 9110 §5.6.1: empty elements of a list are to be ignored.
                "" => {}
                _ if option.eq_ignore_ascii_case("close") => self.close = true,
                _ if option.eq_ignore_ascii_case("keep-alive") => self.keep_alive = true,
                _ if option.eq_ignore_ascii_case("upgrade") => self.upgrade = true,
                _ if HOP_BY_HOP.iter().any(|known| option.eq_ignore_ascii_case(known)) => {}
                _ if has_field(option) => return Err(HeadError::ConnectionOption),
                _ => {}
            }
        }
        Ok(())
    }
}
