//! Prometheus metrics: base units, and labels from closed enums only.

use dns_proxy::Event;

use crate::inspect::Figures;

/// The registry and its instruments.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        todo!()
    }

    /// Counts one event of the proxy. Called for every lookup: does not allocate or lock.
    pub fn observe(&self, event: &Event<'_>) {
        let _ = event;
        todo!()
    }

    /// The text exposition format, gauges from `figures`.
    pub fn render(&self, figures: &Figures) -> String {
        let _ = figures;
        todo!()
    }
}
