//! The builder: recipe to release.
#![forbid(unsafe_code)]

pub mod compose;
pub mod error;
pub mod identity;
pub mod oci;
pub mod output;
pub mod recipe;
pub mod timings;
