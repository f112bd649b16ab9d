//! The numbers of `linux/netfilter/nf_tables.h`, as far as they are used here: once for those who
//! write messages and those who read them.
//!
//! Each module holds one enumeration of attributes or values; the comment says its prefix there.

/// `NFPROTO_INET`: the family of our table.
pub(crate) const FAMILY_INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM: u16 = 10;
/// `NFTA_LIST_ELEM`: an entry of any list.
pub(crate) const LIST_ELEMENT: u16 = 1;
/// `NFT_OBJECT_COUNTER`.
pub(crate) const OBJECT_COUNTER: u32 = 1;
/// `NFT_TABLE_F_DORMANT`: no hook calls the chains of the table.
pub(crate) const TABLE_DORMANT: u32 = 1;
/// `NFT_SET_ELEM_INTERVAL_END`: the element is the end of a range and not part of it.
pub(crate) const ELEMENT_INTERVAL_END: u32 = 1;

/// `NFT_MSG_`, with the subsystem.
pub(crate) mod msg {
    use super::SUBSYSTEM;

    pub(crate) const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub(crate) const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
    pub(crate) const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
    pub(crate) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
    pub(crate) const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
    pub(crate) const DELETE_CHAIN: u16 = SUBSYSTEM << 8 | 5;
    pub(crate) const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
    pub(crate) const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
    pub(crate) const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
    pub(crate) const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
    pub(crate) const GET_SET: u16 = SUBSYSTEM << 8 | 10;
    pub(crate) const DELETE_SET: u16 = SUBSYSTEM << 8 | 11;
    pub(crate) const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
    pub(crate) const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
    pub(crate) const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
    pub(crate) const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;
    pub(crate) const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;
    pub(crate) const NEW_OBJECT: u16 = SUBSYSTEM << 8 | 18;
    pub(crate) const GET_OBJECT: u16 = SUBSYSTEM << 8 | 19;
}

/// `NFTA_GEN_`.
pub(crate) mod generation {
    pub(crate) const ID: u16 = 1;
}

/// `NFTA_TABLE_`.
pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const HANDLE: u16 = 4;
}

/// `NFTA_CHAIN_`.
pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const HANDLE: u16 = 2;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
}

/// `NFTA_HOOK_`.
pub(crate) mod hook {
    pub(crate) const NUMBER: u16 = 1;
    pub(crate) const PRIORITY: u16 = 2;
}

/// `NFTA_RULE_`.
pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
}

/// `NFTA_SET_`.
pub(crate) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LENGTH: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LENGTH: u16 = 7;
    pub(crate) const DESCRIPTION: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const TIMEOUT: u16 = 11;
    pub(crate) const GC_INTERVAL: u16 = 12;
    pub(crate) const HANDLE: u16 = 16;
    /// What each element of the set has.
    pub(crate) const EXPRESSION: u16 = 17;
}

/// `NFTA_EXPR_`.
pub(crate) mod expression {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;
}

/// `NFTA_LIMIT_`.
pub(crate) mod limit {
    pub(crate) const RATE: u16 = 1;
    /// The time of the rate, in seconds.
    pub(crate) const UNIT: u16 = 2;
    pub(crate) const BURST: u16 = 3;
    pub(crate) const TYPE: u16 = 4;
    pub(crate) const FLAGS: u16 = 5;
    /// `NFT_LIMIT_PKTS`.
    pub(crate) const PACKETS: u32 = 0;
    /// `NFT_LIMIT_F_INV`: what is over the limit matches.
    pub(crate) const INVERTED: u32 = 1;
}

/// `NFTA_SET_DESC_`.
pub(crate) mod set_description {
    pub(crate) const SIZE: u16 = 1;
    pub(crate) const CONCAT: u16 = 2;
}

/// `NFTA_SET_FIELD_`.
pub(crate) mod set_field {
    pub(crate) const LENGTH: u16 = 1;
}

/// `NFT_SET_`.
pub(crate) mod set_flag {
    /// The set is part of a rule.
    pub(crate) const ANONYMOUS: u32 = 0x1;
    pub(crate) const CONSTANT: u32 = 0x2;
    pub(crate) const INTERVAL: u32 = 0x4;
    pub(crate) const MAP: u32 = 0x8;
    pub(crate) const TIMEOUT: u32 = 0x10;
    /// Rules write to the set.
    pub(crate) const EVAL: u32 = 0x20;
    pub(crate) const CONCAT: u32 = 0x80;
    /// Its elements have expressions.
    pub(crate) const EXPR: u32 = 0x100;
}

/// `NFTA_SET_ELEM_LIST_`.
pub(crate) mod element_list {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const ELEMENTS: u16 = 3;
    pub(crate) const SET_ID: u16 = 4;
}

/// `NFTA_SET_ELEM_`.
pub(crate) mod element {
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const TIMEOUT: u16 = 4;
    pub(crate) const EXPIRATION: u16 = 5;
    pub(crate) const KEY_END: u16 = 10;
}

/// `NFTA_DATA_`.
pub(crate) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
}

/// `NFTA_VERDICT_`.
pub(crate) mod verdict {
    pub(crate) const CODE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
}

/// `NFTA_OBJ_`.
pub(crate) mod object {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const DATA: u16 = 4;
}

/// `NFTA_COUNTER_`.
pub(crate) mod counter {
    pub(crate) const PACKETS: u16 = 2;
}
