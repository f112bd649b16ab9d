//! Starts what looks into connections, as soon as a plan has a program that does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use enforcer::{Handover, routing};
use l7_proxy::{DialOptions, L7Server, L7ServerConfig, PassageLimits};
use parking_lot::Mutex;
use planner::Plan;
use settings::{InspectionMode, InspectionOptions};
use tracing::{error, info, warn};

use crate::judge::NodeJudge;

/// The most threads that look into connections.
const MOST_THREADS: usize = 4;

/// How often an agent that ends looks whether connections are still open.
const LOOK: Duration = Duration::from_millis(20);

/// The listeners and threads that look into connections, once there are any.
pub struct Inspector {
    options: InspectionOptions,
    judge: Arc<NodeJudge>,
    server: Mutex<Option<L7Server>>,
}

impl Inspector {
    pub(crate) fn new(options: InspectionOptions, judge: Arc<NodeJudge>) -> Self {
        Self {
            options,
            judge,
            server: Mutex::default(),
        }
    }

    /// Where this plan's programs hand connections over. `None` where they look into none, or where
    /// nobody can: then these connections are refused.
    pub(crate) fn handover(&self, plan: &Plan) -> Option<Handover> {
        let mut programs = plan.desired.programs.values();
        if self.options.inspect == InspectionMode::Off || !programs.any(|program| program.inspects()) {
            return None;
        }
        let mut server = self.server.lock();
        if server.is_none() {
            *server = self.start();
        }
        let listeners = server.as_ref()?.addresses().to_vec();
        Some(self.handover_to(listeners))
    }

    /// A plan is in force.
    pub(crate) fn rules_changed(&self) {
        if let Some(server) = &*self.server.lock() {
            server.rules_changed();
        }
    }

    /// Whether connections may come here.
    pub(crate) fn is_running(&self) -> bool {
        self.server.lock().is_some()
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.server.lock().as_ref().map_or(0, L7Server::open_connections)
    }

    /// Takes no connections any more, and lets those that are open come to an end. What is left
    /// after this time is reset. Returns how many these were.
    pub(crate) async fn drain(&self, within: Duration) -> usize {
        if let Some(server) = &*self.server.lock() {
            server.drain();
        }
        let over = async {
            while self.open_connections() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let left = match tokio::time::timeout(within, over).await {
            Ok(()) => 0,
            Err(_) => self.open_connections(),
        };
        *self.server.lock() = None;
        left
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
            limits: limits(&self.options),
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

fn limits(options: &InspectionOptions) -> PassageLimits {
    let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    PassageLimits {
        connections_of_a_pod: count(options.inspect_pod_connections),
        connections: count(options.inspect_connections),
        ..PassageLimits::default()
    }
}
