//! The ruleset in a real kernel, with real packets, in network namespaces that each test makes for itself.

mod egress;
mod interception;
mod lab;
mod programs;
mod routing;
