//! All policies that select an endpoint → one program.

use crate::endpoint::Endpoint;
use crate::policy::Policy;
use crate::program::Program;

/// Compiles the egress policy of one endpoint.
///
/// `None` when no policy selects it: such an endpoint is left untouched.
pub fn compile<'a>(endpoint: &Endpoint, policies: impl IntoIterator<Item = &'a Policy>) -> Option<Program> {
    let _ = (endpoint, policies.into_iter().count());
    todo!()
}
