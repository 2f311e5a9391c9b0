//! What maintainer scripts would have done, from data.
#![forbid(unsafe_code)]
