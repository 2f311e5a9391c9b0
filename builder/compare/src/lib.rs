//! What differs between two releases.
#![forbid(unsafe_code)]
