//! Characters of a text → bytes.

/// How many bytes stand before the n-th character of a text. Asked in any order; each answer costs
/// at most [`STEP`] characters.
pub(super) struct Bytes<'t> {
    text: &'t str,
    /// The byte before every [`STEP`]-th character; empty for ASCII, in which the two are the same.
    known: Vec<u32>,
}

const STEP: usize = 64;

impl<'t> Bytes<'t> {
    /// Text is shorter than 4 GiB.
    pub(super) fn of(text: &'t str) -> Self {
        let known = match text.is_ascii() {
            true => Vec::new(),
            false => {
                let bytes = text
                    .char_indices()
                    .map(|(byte, _)| u32::try_from(byte).unwrap_or(u32::MAX));
                bytes.step_by(STEP).collect()
            }
        };
        Self { text, known }
    }

    /// The length of the text, for a character that it does not have.
    pub(super) fn before(&self, char: usize) -> usize {
        if self.known.is_empty() {
            return char.min(self.text.len());
        }
        let Some(&byte) = self.known.get(char / STEP) else {
            return self.text.len();
        };
        let byte = byte as usize;
        let rest = self.text.get(byte..).unwrap_or_default();
        let further = rest
            .char_indices()
            .nth(char % STEP)
            .map_or(rest.len(), |(further, _)| further);
        byte + further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_found_in_texts_of_one_byte_and_of_many() {
        for text in ["", "plain".repeat(40).as_str(), "ä€𝄞x".repeat(50).as_str()] {
            let bytes = Bytes::of(text);
            let places = text.char_indices().map(|(byte, _)| byte);
            for (char, byte) in places.chain([text.len(), text.len()]).enumerate() {
                assert_eq!(bytes.before(char), byte);
            }
        }
    }
}
