//! Source address → chain of its program.

use nftables::expr::{NamedExpression, SetItem, Verdict};
use nftables::stmt::{Statement, VerdictMap};

use super::document::Document;
use super::expression::{Expr, address, named, source, target};
use super::{program, refusal};
use crate::desired::Desired;
use crate::layout::Family;

/// The chain that both `forward` and `input` jump to. A source that no program governs comes back from it.
pub(super) const CHAIN: &str = "dispatch";

pub(super) fn chain(document: &mut Document<'_>, desired: &Desired) {
    document.chain(CHAIN);
    for family in Family::BOTH {
        let verdicts: Vec<_> = desired
            .dispatch
            .iter()
            .filter(|(source, _)| Family::of(**source) == family)
            .map(|(source, id)| {
                // A program that is not there cannot allow anything.
                let chain = match desired.programs.contains_key(id) {
                    true => program::chain_name(*id, family),
                    false => refusal::CHAIN.to_owned(),
                };
                SetItem::Mapping(address(*source), Expr::Verdict(Verdict::Goto(target(&chain))))
            })
            .collect();
        // nft refuses an empty anonymous map.
        if !verdicts.is_empty() {
            let by_source = VerdictMap {
                key: source(family),
                data: named(NamedExpression::Set(verdicts)),
            };
            document.rule(CHAIN, [Statement::VerdictMap(by_source)]);
        }
    }
}
