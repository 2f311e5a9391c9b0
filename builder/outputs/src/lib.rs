//! Disk images in the formats of hypervisors.
#![forbid(unsafe_code)]
