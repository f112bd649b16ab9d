//! Names that ask for the name of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Name;

impl Name {
    /// The address that a reverse name asks for: four decimal octets under `in-addr.arpa` (RFC 1035
    /// §3.5), or 32 nibbles under `ip6.arpa` (RFC 3596 §2.5). `None` for every other name, and for
    /// the zones between.
    pub fn reverse_address(&self) -> Option<IpAddr> {
        if let Some(octets) = self.0.strip_suffix(".in-addr.arpa.") {
            let mut labels = octets.rsplit('.');
            let mut address = [0; 4];
            for octet in &mut address {
                *octet = decimal_octet(labels.next()?)?;
            }
            return labels.next().is_none().then(|| Ipv4Addr::from(address).into());
        }
        let nibbles = self.0.strip_suffix(".ip6.arpa.")?;
        let mut labels = nibbles.rsplit('.');
        let mut address: u128 = 0;
        for _ in 0..32 {
            address = address << 4 | nibble(labels.next()?)?;
        }
        labels.next().is_none().then(|| Ipv6Addr::from(address).into())
    }
}

/// An octet as `in-addr.arpa` writes it: no sign, no leading zero.
fn decimal_octet(label: &str) -> Option<u8> {
    let canonical = label == "0" || !label.starts_with(['0', '+']);
    canonical.then(|| label.parse().ok())?
}

fn nibble(label: &str) -> Option<u128> {
    let mut chars = label.chars();
    let digit = chars.next()?.to_digit(16)?;
    chars.next().is_none().then_some(digit.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn reverse_names_give_their_address() {
        let asks = |text: &str| name(text).reverse_address();
        assert_eq!(
            asks("4.3.2.1.in-addr.arpa"),
            Some(IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4)))
        );
        assert_eq!(
            asks("255.0.0.10.IN-ADDR.ARPA."),
            Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 255)))
        );
        assert_eq!(
            asks("B.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
            Some("2001:db8::567:89ab".parse().unwrap())
        );
    }

    #[test]
    fn reverse_names_are_read_strictly() {
        let nibbles = "0.".repeat(31);
        assert!(name(&format!("0.{nibbles}ip6.arpa")).reverse_address().is_some());
        for text in [
            "in-addr.arpa",
            "3.2.1.in-addr.arpa",
            "5.4.3.2.1.in-addr.arpa",
            "04.3.2.1.in-addr.arpa",
            "256.3.2.1.in-addr.arpa",
            "0x4.3.2.1.in-addr.arpa",
            "-1.3.2.1.in-addr.arpa",
            "4.3.2.1.in-addr.arpa.example",
            "4.3.2.1xin-addr.arpa",
            "ip6.arpa",
            "0.0.ip6.arpa",
            &format!("{nibbles}ip6.arpa"),
            &format!("0.0.{nibbles}ip6.arpa"),
            &format!("10.{nibbles}ip6.arpa"),
            &format!("g.{nibbles}ip6.arpa"),
            "example.com",
        ] {
            assert_eq!(name(text).reverse_address(), None, "{text}");
        }
        let signed: [&[u8]; 6] = [b"+4", b"3", b"2", b"1", b"in-addr", b"arpa"];
        assert_eq!(Name::from_wire_labels(signed).reverse_address(), None);
    }

    proptest! {
        #[test]
        fn every_address_has_a_reverse_name(address in any::<IpAddr>()) {
            let text = match address {
                IpAddr::V4(v4) => {
                    let [a, b, c, d] = v4.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                IpAddr::V6(v6) => {
                    let nibbles: Vec<String> =
                        format!("{:032x}", u128::from(v6)).chars().rev().map(String::from).collect();
                    format!("{}.ip6.arpa", nibbles.join("."))
                }
            };
            prop_assert_eq!(Name::parse(&text).unwrap().reverse_address(), Some(address));
        }
    }
}
