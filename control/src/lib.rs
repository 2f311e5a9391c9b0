//! The control API of a machine and `ashlarctl`, which speaks it.
//!
//! `ashlarctl serve` runs on the machine: HTTP/2 with JSON on a Unix socket and over mutual TLS, translated to the one
//! line requests of PID 1 (`ashlar_image::control`). PID 1 parses nothing that comes from afar; this program decides
//! nothing about the machine. The client is the same program, there and on the owner's computer.
//!
//! Pure: [`api`] (what a request means), [`role`] (who may), [`logs::query`], [`fingerprint`]. The rest moves bytes.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod client;
mod clock;
pub mod error;
pub mod files;
pub mod fingerprint;
pub mod identity;
pub mod logs;
pub mod role;
pub mod server;
mod text;
