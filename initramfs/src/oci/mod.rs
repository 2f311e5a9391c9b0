//! Containers as OCI bundles (OCI Runtime Specification 1.1), for the runtime in the image, and the system calls that
//! containers and services may make.

pub mod bundle;
pub mod filter;
pub mod numbers;
pub mod seccomp;
