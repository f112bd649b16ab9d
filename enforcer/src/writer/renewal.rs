//! How elements are renewed that the kernel holds already.

/// How the life of an element is prolonged that is in the kernel already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Adding it again, with timeout and expiration, renews it: Linux 6.12 and later.
    Refresh,
    /// It is deleted and added again in one transaction: works everywhere, costs more.
    Replace,
}

/// One step through all elements that a transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewalPass {
    Add,
    Delete,
}

impl Renewal {
    /// The steps that leave every element in the kernel with its new timeout.
    pub(super) fn passes(self) -> &'static [RenewalPass] {
        match self {
            Renewal::Refresh => &[RenewalPass::Add],
            Renewal::Replace => &[RenewalPass::Add, RenewalPass::Delete, RenewalPass::Add],
        }
    }
}
