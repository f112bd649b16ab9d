//! Starts what looks into connections, as soon as a plan has a program that does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;

use enforcer::{Handover, routing};
use l7_proxy::{DialOptions, L7Server, L7ServerConfig, PassageLimits};
use planner::Plan;
use settings::{InspectionMode, InspectionOptions};
use tracing::{error, info, warn};

use crate::judge::NodeJudge;

/// The most threads that look into connections.
const MOST_THREADS: usize = 4;

/// The listeners and threads that look into connections, once there are any.
pub(crate) struct Inspector {
    options: InspectionOptions,
    judge: Arc<NodeJudge>,
    server: Option<L7Server>,
}

impl Inspector {
    pub(crate) fn new(options: InspectionOptions, judge: Arc<NodeJudge>) -> Self {
        Self {
            options,
            judge,
            server: None,
        }
    }

    /// Where this plan's programs hand connections over. `None` where they look into none, or where
    /// nobody can: then these connections are refused.
    pub(crate) fn handover(&mut self, plan: &Plan) -> Option<Handover> {
        let mut programs = plan.desired.programs.values();
        if self.options.inspect == InspectionMode::Off || !programs.any(|program| program.inspects()) {
            return None;
        }
        if self.server.is_none() {
            self.server = self.start();
        }
        let server = self.server.as_ref()?;
        Some(self.handover_to(server.addresses().to_vec()))
    }

    /// A plan is in force.
    pub(crate) fn rules_changed(&self) {
        if let Some(server) = &self.server {
            server.rules_changed();
        }
    }

    fn start(&self) -> Option<L7Server> {
        let any_port = |ip: IpAddr| SocketAddr::new(ip, 0);
        let v4 = any_port(routing::HANDOVER_V4.into());
        let v6 = any_port(routing::HANDOVER_V6.into());
        // The addresses must exist before they can be bound.
        if let Err(failure) = routing::set_up_handover(&self.handover_to(vec![v4, v6])) {
            error!(%failure, "connections cannot be looked into, and are refused");
            return None;
        }
        match self.serve(vec![v4, v6]) {
            Ok(server) => Some(server),
            Err(without) => match self.serve(vec![v4]) {
                Ok(server) => {
                    warn!(%without, "connections over IPv6 cannot be looked into, and are refused");
                    Some(server)
                }
                Err(failure) => {
                    error!(%failure, "connections cannot be looked into, and are refused");
                    None
                }
            },
        }
    }

    fn serve(&self, addresses: Vec<SocketAddr>) -> Result<L7Server, l7_proxy::L7ServerError> {
        let config = L7ServerConfig {
            addresses,
            workers: available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
            dial: DialOptions {
                mark: Some(self.options.inspect_mark.get()),
                keeps_source: true,
            },
            limits: PassageLimits::default(),
        };
        let server = L7Server::start(Arc::clone(&self.judge), config)?;
        info!(addresses = ?server.addresses(), "connections are looked into");
        Ok(server)
    }

    fn handover_to(&self, listeners: Vec<SocketAddr>) -> Handover {
        Handover {
            listeners,
            mark: self.options.inspect_mark,
            reply_mark: self.options.inspect_reply_mark,
            routing_table: self.options.inspect_table,
            zone: self.options.inspect_zone,
        }
    }
}
