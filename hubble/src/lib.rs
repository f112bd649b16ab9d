//! The observer API of Hubble, so that people's own tools show what happens on a node.
//!
//! - [`flow`]: an event as Hubble says it, pure.
//! - [`filter`]: the filters of a question, which run here and not in the client, pure.
//! - [`observer`]: the services, over what [`FlowSource`] remembers.
//! - [`listen`]: where they are served: a Unix socket, or a port with TLS both ways.
//!
//! The `.proto` files are our own, with the names and numbers that are Hubble's public interface,
//! as far as they are served.

pub mod filter;
pub mod flow;
pub mod listen;
pub mod observer;

mod label_selector;

/// The interface, as it is generated.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code has the names of the interface"
)]
pub mod proto {
    /// `flow.proto`.
    pub mod flow {
        tonic::include_proto!("flow");
    }
    /// `observer.proto`.
    pub mod observer {
        tonic::include_proto!("observer");
    }
    /// `peer.proto`.
    pub mod peer {
        tonic::include_proto!("peer");
    }
    /// `relay.proto`.
    pub mod relay {
        tonic::include_proto!("relay");
    }
}

pub use listen::{ListenError, TlsFiles};
pub use observer::{FlowReader, FlowSource, ObservedNode};
