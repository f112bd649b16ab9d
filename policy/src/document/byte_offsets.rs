//! Character offsets of a text → byte offsets.

/// Maps character offsets to byte offsets, in any order. Each answer goes through at most [`STEP`]
/// characters.
pub(super) struct ByteOffsets<'t> {
    text: &'t str,
    /// The byte offset of every [`STEP`]-th character; empty for ASCII, where both offsets are
    /// equal.
    known: Vec<u32>,
}

const STEP: usize = 64;

impl<'t> ByteOffsets<'t> {
    /// `text` must be shorter than 4 GiB.
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

    /// The byte offset of a character; the length of the text when it has no such character.
    pub(super) fn of_char(&self, char: usize) -> usize {
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
            let offsets = ByteOffsets::of(text);
            let expected = text.char_indices().map(|(byte, _)| byte);
            for (char, byte) in expected.chain([text.len(), text.len()]).enumerate() {
                assert_eq!(offsets.of_char(char), byte);
            }
        }
    }
}
