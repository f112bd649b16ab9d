//! Events as people read them, on a terminal and in a browser.

use std::fmt;
use std::time::Duration;

use crate::events::{EventEndRow, EventRow, FlowTotalsRow, RequestRow};

impl EventRow {
    /// `TCP`, `ICMP type 8`; `None` where no traffic is meant.
    pub fn protocol_text(&self) -> Option<String> {
        let protocol = self.protocol.as_ref()?;
        Some(match self.icmp_type {
            Some(kind) => format!("{protocol} type {kind}"),
            None => protocol.clone(),
        })
    }
}

impl fmt::Display for EventEndRow {
    /// `shop/web (10.0.0.2:80)`, or the names and the address, with the port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let address = self
            .address
            .map(|address| match address.is_ipv6() && self.port.is_some() {
                true => format!("[{address}]"),
                false => address.to_string(),
            });
        let address = address.unwrap_or_else(|| "?".into());
        let pod = self.namespace.as_ref().zip(self.pod.as_ref());
        match (pod, self.names.is_empty()) {
            (Some((namespace, pod)), _) => write!(f, "{namespace}/{pod} ({address}{port})"),
            (None, false) => write!(f, "{} ({address}{port})", self.names.join(", ")),
            (None, true) => write!(f, "{address}{port}"),
        }
    }
}

impl fmt::Display for FlowTotalsRow {
    /// `ended after 1s 200ms: 12 packets, 3456 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = humantime::format_duration(Duration::from_millis(self.duration_ms));
        write!(f, "ended after {lasted}")?;
        match self.packets.zip(self.bytes) {
            Some((packets, bytes)) => write!(f, ": {packets} packets, {bytes} bytes"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RequestRow {
    /// `GET host/path`, or `TLS host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.as_deref().unwrap_or("TLS");
        write!(f, "{method} {}{}", self.host, self.path.as_deref().unwrap_or_default())
    }
}
