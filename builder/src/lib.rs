//! The builder: recipe to release, and what can be told of a release.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod build;
pub mod channel;
pub mod cli;
pub mod compose;
pub mod error;
pub mod graph;
pub mod identity;
pub mod inspect;
pub mod lock;
pub mod machine;
pub mod machine_config;
pub mod os_release;
pub mod output;
pub mod packages;
pub mod progress;
pub mod recipe;
pub mod recovery;
pub mod store;
pub mod timings;
