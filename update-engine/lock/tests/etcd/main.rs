//! The lock on real etcd: three members in network namespaces of their own, and what may happen to them.

#![allow(clippy::unwrap_used)]

mod cluster;
mod faults;
mod inside;
mod killed;
mod many;
mod relay;
mod secure;
