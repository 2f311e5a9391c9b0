//! Containers as OCI bundles (OCI Runtime Specification 1.1), for the runtime in the image.

pub mod bundle;
pub mod seccomp;
