//! The plan in force, and the one that is about to be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dns_proxy::QueryTarget;
use enforcer::writer::Generation;
use names::Name;
use policy::question::QuestionVerdict;

use super::Plan;

/// A plan and the generation of the ruleset that enforces it.
#[derive(Debug)]
pub struct ActivePlan {
    /// The plan by which lookups are judged.
    pub plan: Arc<Plan>,
    /// The generation under which its sets may be written.
    pub generation: Generation,
    /// The plan that is being installed in its place. The kernel may enforce it already.
    pub coming: Option<Arc<Plan>>,
}

impl ActivePlan {
    /// The plan by which a lookup is judged, and whether that is the coming one. The coming plan
    /// judges where it alone knows the client and the resolver, or alone allows the question.
    pub fn plan_for(&self, source: IpAddr, target: QueryTarget, name: &Name) -> (&Plan, bool) {
        let knows = |plan: &Plan| {
            let resolver = match target {
                QueryTarget::Resolver(resolver) => plan.upstreams(resolver).is_some(),
                QueryTarget::Proxy => true,
            };
            resolver && plan.governed.contains_key(&source)
        };
        let allows = |plan: &Plan| {
            let questions = plan.governed.get(&source).and_then(|it| it.questions.as_ref());
            questions.is_some_and(|it| !matches!(it.judge(target_address(target), name), QuestionVerdict::Denied(_)))
        };
        match &self.coming {
            Some(coming) if knows(coming) && (!knows(&self.plan) || !allows(&self.plan) && allows(coming)) => {
                (coming, true)
            }
            _ => (&self.plan, false),
        }
    }
}

/// The resolver that rules about resolvers are matched with. No rule lists the proxy's own
/// listener.
pub fn target_address(target: QueryTarget) -> SocketAddr {
    match target {
        QueryTarget::Resolver(resolver) => resolver,
        QueryTarget::Proxy => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53),
    }
}
