//! Verdicts as attributes (`NFTA_DATA_VERDICT`).

use super::message::{Attributes, Encoder, field, text};
use super::nf_tables;
use super::objects::NftVerdict;

/// `NF_DROP`, `NF_ACCEPT`, `NFT_GOTO`, `NFT_RETURN`.
const DROP: i32 = 0;
pub(crate) const ACCEPT: i32 = 1;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// Writes a verdict into the nest of a value.
pub(crate) fn encode(encoder: &mut Encoder, verdict: &NftVerdict) {
    let (code, chain) = match verdict {
        NftVerdict::Accept => (ACCEPT, None),
        NftVerdict::Drop => (DROP, None),
        NftVerdict::Return => (RETURN, None),
        NftVerdict::Goto(chain) => (GOTO, Some(chain)),
    };
    let nest = encoder.open_nest(nf_tables::data::VERDICT);
    encoder.attribute(nf_tables::verdict::CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        encoder.string(nf_tables::verdict::CHAIN, chain);
    }
    encoder.close_nest(nest);
}

/// Reads the verdict out of the nest of a value; `None` where there is none, or one that we never
/// write.
pub(crate) fn read(data: &[u8]) -> Option<NftVerdict> {
    let verdict = Attributes(data).find(nf_tables::data::VERDICT)?;
    match i32::from_be_bytes(field(Attributes(verdict).find(nf_tables::verdict::CODE)?, 0)?) {
        ACCEPT => Some(NftVerdict::Accept),
        DROP => Some(NftVerdict::Drop),
        RETURN => Some(NftVerdict::Return),
        GOTO => {
            let chain = Attributes(verdict).find(nf_tables::verdict::CHAIN).and_then(text)?;
            Some(NftVerdict::Goto(chain.into()))
        }
        _ => None,
    }
}
