//! File trees from directories, tar archives, OCI layouts and registries.
#![forbid(unsafe_code)]
