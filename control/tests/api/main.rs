//! The API as others see it: `ashlarctl serve` against a PID 1 of the real socket code, asked by curl, OpenSSL, raw
//! connections and `ashlarctl` itself.
#![allow(clippy::unwrap_used)] // a test fails by it

mod cli;
mod http;
mod limits;
mod logs;
mod machine;
mod programs;
mod tls;
