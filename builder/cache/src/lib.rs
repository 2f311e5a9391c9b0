//! The builder's cache folder: what can be had again, shared by builds that run at once.
#![forbid(unsafe_code)]
