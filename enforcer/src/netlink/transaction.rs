//! Commands as one nf_tables transaction: encodes them, and reads the replies
//! (`linux/netfilter/nf_tables.h`).
//!
//! As in [`batch`](super::batch) the kernel applies all of it or nothing; only the last message
//! asks for an acknowledgement.

mod expression;
mod set;

use std::sync::Arc;

pub(crate) use set::declared;

use super::batch::{BEGIN, END, NEST_LIMIT, boundary};
use super::message::{Encoder, NfnlHeader, OpenMessage, flags};
use super::objects::{NewElement, TableCommand};
use super::reply::NetlinkReply;
use super::{nf_tables, verdict};

/// An encoded transaction.
#[derive(Debug)]
pub(crate) struct EncodedTransaction {
    /// What to send.
    pub(crate) bytes: Vec<u8>,
    begin: u32,
    /// For each message its command.
    commands: Vec<usize>,
}

/// Why a transaction was aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandError {
    /// The position of the command; `None` when the error concerns the whole.
    pub(crate) command: Option<usize>,
    /// A positive errno.
    pub(crate) errno: i32,
    /// The kernel's explanation, or the errno's.
    pub(crate) text: String,
}

impl EncodedTransaction {
    /// Encodes commands in their order.
    pub(crate) fn new(table: &str, commands: &[TableCommand], begin: u32) -> Self {
        let mut writer = TransactionEncoder {
            encoder: Encoder::default(),
            table,
            begin,
            commands: Vec::new(),
            current: 0,
            anonymous: 0,
            last: None,
        };
        boundary(&mut writer.encoder, BEGIN, begin);
        for (at, command) in commands.iter().enumerate() {
            writer.current = at;
            writer.command(command);
        }
        if let Some(last) = writer.last {
            writer.encoder.add_flags(last, flags::ACK);
        }
        let end = writer.next_sequence();
        boundary(&mut writer.encoder, END, end);
        Self {
            bytes: writer.encoder.finish(),
            begin,
            commands: writer.commands,
        }
    }

    /// The sequence number of `END`.
    pub(crate) fn end(&self) -> u32 {
        sequence(self.begin, self.commands.len())
    }

    /// Takes a reply into account, and returns whether it was the last.
    pub(crate) fn take(&self, errors: &mut Vec<CommandError>, reply: NetlinkReply) -> bool {
        let Ok(position) = usize::try_from(reply.sequence.wrapping_sub(self.begin)) else {
            return false;
        };
        if position > self.commands.len() {
            return false;
        }
        if reply.errno != 0 {
            errors.push(CommandError {
                command: position
                    .checked_sub(1)
                    .and_then(|message| self.commands.get(message).copied()),
                errno: reply.errno,
                text: reply
                    .explanation
                    .unwrap_or_else(|| std::io::Error::from_raw_os_error(reply.errno).to_string()),
            });
        }
        position == 0 || position == self.commands.len()
    }
}

/// The number of the message after `before` others.
fn sequence(begin: u32, before: usize) -> u32 {
    begin
        .wrapping_add(1)
        .wrapping_add(u32::try_from(before).unwrap_or(u32::MAX))
}

struct TransactionEncoder<'a> {
    encoder: Encoder,
    table: &'a str,
    begin: u32,
    commands: Vec<usize>,
    current: usize,
    /// The number of sets so far, from which their ids are made.
    anonymous: u32,
    /// Where the last message begins.
    last: Option<usize>,
}

impl TransactionEncoder<'_> {
    fn command(&mut self, command: &TableCommand) {
        match command {
            TableCommand::AddTable => {
                let message = self.open(nf_tables::msg::NEW_TABLE, flags::CREATE);
                self.encoder.string(nf_tables::table::NAME, self.table);
                // Explicit, so that a table which somebody has made dormant (`flags dormant`)
                // wakes.
                self.encoder.attribute(nf_tables::table::FLAGS, &0u32.to_be_bytes());
                self.encoder.close_message(message);
            }
            TableCommand::DeleteTable => {
                let message = self.open(nf_tables::msg::DELETE_TABLE, 0);
                self.encoder.string(nf_tables::table::NAME, self.table);
                self.encoder.close_message(message);
            }
            TableCommand::AddChain(name) => self.named(
                nf_tables::msg::NEW_CHAIN,
                flags::CREATE,
                (nf_tables::chain::TABLE, nf_tables::chain::NAME),
                name,
            ),
            TableCommand::AddBaseChain(name, at) => {
                let message = self.open(nf_tables::msg::NEW_CHAIN, flags::CREATE);
                self.encoder.string(nf_tables::chain::TABLE, self.table);
                self.encoder.string(nf_tables::chain::NAME, name);
                let hook = self.encoder.open_nest(nf_tables::chain::HOOK);
                self.encoder
                    .attribute(nf_tables::hook::NUMBER, &at.number.to_be_bytes());
                self.encoder
                    .attribute(nf_tables::hook::PRIORITY, &at.priority.to_be_bytes());
                self.encoder.close_nest(hook);
                self.encoder
                    .attribute(nf_tables::chain::POLICY, &verdict::ACCEPT.to_be_bytes());
                self.encoder.string(nf_tables::chain::TYPE, &at.kind);
                self.encoder.close_message(message);
            }
            TableCommand::AddSet(name, form) | TableCommand::LimitSet(name, form) => self.add_set(name, form),
            TableCommand::AddElements(set, elements) => self.add_elements(set, None, elements),
            TableCommand::DeleteElements(set, keys) => {
                let elements: Vec<_> = keys.iter().cloned().map(NewElement::plain).collect();
                self.elements(nf_tables::msg::DELETE_ELEMENT, 0, set, None, &elements);
            }
            // Without a list this deletes all elements.
            TableCommand::EmptySet(set) => self.named(
                nf_tables::msg::DELETE_ELEMENT,
                0,
                (nf_tables::element_list::TABLE, nf_tables::element_list::SET),
                set,
            ),
            TableCommand::AddRule(chain, rule) => {
                let rule = self.resolve(rule);
                let message = self.open(nf_tables::msg::NEW_RULE, flags::CREATE | flags::APPEND);
                self.encoder.string(nf_tables::rule::TABLE, self.table);
                self.encoder.string(nf_tables::rule::CHAIN, chain);
                let expressions = self.encoder.open_nest(nf_tables::rule::EXPRESSIONS);
                expression::encode(&mut self.encoder, &rule);
                self.encoder.close_nest(expressions);
                self.encoder.close_message(message);
            }
            // Without a handle this deletes all rules of the chain.
            TableCommand::EmptyChain(chain) => self.named(
                nf_tables::msg::DELETE_RULE,
                0,
                (nf_tables::rule::TABLE, nf_tables::rule::CHAIN),
                chain,
            ),
            TableCommand::DeleteSet(name) => self.named(
                nf_tables::msg::DELETE_SET,
                0,
                (nf_tables::set::TABLE, nf_tables::set::NAME),
                name,
            ),
            TableCommand::DeleteChain(name) => self.named(
                nf_tables::msg::DELETE_CHAIN,
                0,
                (nf_tables::chain::TABLE, nf_tables::chain::NAME),
                name,
            ),
        }
    }

    /// Writes a message with the table's name and another name, under these attributes.
    fn named(&mut self, kind: u16, flags: u16, attributes: (u16, u16), name: &Arc<str>) {
        let message = self.open(kind, flags);
        self.encoder.string(attributes.0, self.table);
        self.encoder.string(attributes.1, name);
        self.encoder.close_message(message);
    }

    fn add_elements(&mut self, set: &str, id: Option<u32>, elements: &[NewElement]) {
        self.elements(nf_tables::msg::NEW_ELEMENT, flags::CREATE, set, id, elements);
    }

    /// Writes as many messages as the elements need: the elements of a message are in one nested
    /// attribute, whose length has 16 bits.
    fn elements(&mut self, kind: u16, flags: u16, set: &str, id: Option<u32>, elements: &[NewElement]) {
        let mut rest = elements;
        while !rest.is_empty() {
            let mut room = NEST_LIMIT;
            let fitting = rest.iter().take_while(|element| {
                let size = set::element_size(element);
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            });
            let (now, later) = rest.split_at(fitting.count().max(1));
            let message = self.open(kind, flags);
            self.encoder.string(nf_tables::element_list::TABLE, self.table);
            self.encoder.string(nf_tables::element_list::SET, set);
            if let Some(id) = id {
                self.encoder
                    .attribute(nf_tables::element_list::SET_ID, &id.to_be_bytes());
            }
            let list = self.encoder.open_nest(nf_tables::element_list::ELEMENTS);
            for element in now {
                let nest = self.encoder.open_nest(nf_tables::LIST_ELEMENT);
                set::encode_element(&mut self.encoder, element);
                self.encoder.close_nest(nest);
            }
            self.encoder.close_nest(list);
            self.encoder.close_message(message);
            rest = later;
        }
    }

    fn open(&mut self, kind: u16, flags: u16) -> OpenMessage {
        let sequence = self.next_sequence();
        self.commands.push(self.current);
        self.last = Some(self.encoder.len());
        self.encoder.open_message(NfnlHeader {
            kind,
            flags: flags::REQUEST | flags,
            sequence,
            family: nf_tables::FAMILY_INET,
            resource: 0,
        })
    }

    fn next_sequence(&self) -> u32 {
        sequence(self.begin, self.commands.len())
    }
}

#[cfg(test)]
mod tests;
