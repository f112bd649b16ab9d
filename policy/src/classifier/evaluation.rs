//! Tiers, evaluated rule by rule: for each port, which rule decides.

use std::ops::Range;

use super::{RuleIndex, SetClass};
use crate::policy::Action;
use crate::port_map::PortMap;
use crate::ports::PortSet;
use crate::program::{Rule, Tiers, Verdict};

/// The rules of all tiers in one list.
#[derive(Debug, Clone)]
pub(super) struct RuleList {
    pub(super) rules: Vec<Rule>,
    /// The rules of tier Network.
    pub(super) network: Range<RuleIndex>,
    pub(super) closed: bool,
}

/// The tier in which a port is decided, and how. A name or an object counts only where it comes
/// before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precedence {
    Admin(Verdict),
    Denied,
    Allowed,
    /// What the connection announces decides. Only in tiers that are closed, so never where
    /// `Rest` allows.
    Inspected,
    Rest(Verdict),
}

impl Precedence {
    pub(super) fn class(self) -> SetClass {
        match self {
            Precedence::Admin(Verdict::Allow) => SetClass::Admin,
            Precedence::Admin(Verdict::Deny | Verdict::Inspect) | Precedence::Denied => SetClass::Deny,
            Precedence::Allowed | Precedence::Rest(Verdict::Allow) => SetClass::Allow,
            Precedence::Inspected => SetClass::Inspect,
            Precedence::Rest(Verdict::Deny | Verdict::Inspect) => SetClass::Rest,
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        self.class().verdict()
    }
}

/// A port while the rules are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortState {
    Undecided,
    /// Left to the next tier.
    Passed,
    Decided(Precedence),
}

impl RuleList {
    pub(super) fn of(tiers: &Tiers) -> Self {
        let begin = tiers.admin.len();
        Self {
            rules: tiers.rules().cloned().collect(),
            network: begin..begin + tiers.network.len(),
            closed: tiers.closed(),
        }
    }

    /// Evaluates matching rules, each with the ports that it means, in order, as a packet would
    /// meet them.
    pub(super) fn evaluate<'a>(&self, matching: impl Iterator<Item = (RuleIndex, &'a PortSet)>) -> PortMap<Precedence> {
        let mut states = PortMap::uniform(PortState::Undecided);
        let mut tier = 0;
        for (index, ports) in matching {
            while tier < self.tier_of(index) {
                self.end_tier(tier, &mut states);
                tier += 1;
            }
            let verdict = match self.rules[index].action {
                Action::Allow => Some(Verdict::Allow),
                Action::Deny => Some(Verdict::Deny),
                Action::Pass => None,
            };
            let decided = match (tier, verdict) {
                (_, None) => PortState::Passed,
                (0, Some(verdict)) => PortState::Decided(Precedence::Admin(verdict)),
                (1, Some(Verdict::Allow)) if self.rules[index].through.is_some() => {
                    PortState::Decided(Precedence::Inspected)
                }
                (1, Some(Verdict::Allow)) => PortState::Decided(Precedence::Allowed),
                (1, Some(Verdict::Deny | Verdict::Inspect)) => PortState::Decided(Precedence::Denied),
                (_, Some(verdict)) => PortState::Decided(Precedence::Rest(verdict)),
            };
            states.change(ports, |now| if now == PortState::Undecided { decided } else { now });
        }
        while tier < 3 {
            self.end_tier(tier, &mut states);
            tier += 1;
        }
        states.map(|state| match state {
            PortState::Decided(precedence) => precedence,
            PortState::Undecided | PortState::Passed => Precedence::Rest(Verdict::Allow),
        })
    }

    /// Admin is 0, Network is 1, Baseline is 2.
    fn tier_of(&self, index: RuleIndex) -> u8 {
        u8::from(index >= self.network.start) + u8::from(index >= self.network.end)
    }

    fn end_tier(&self, tier: u8, states: &mut PortMap<PortState>) {
        let refuses_the_rest = tier == 1 && self.closed;
        *states = states.map(|now| match now {
            PortState::Undecided | PortState::Passed if refuses_the_rest => {
                PortState::Decided(Precedence::Rest(Verdict::Deny))
            }
            PortState::Passed => PortState::Undecided,
            now => now,
        });
    }
}
