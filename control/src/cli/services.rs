//! `ashlarctl services` and `ashlarctl service`

use super::node::Node;
use super::{DONE, Outcome, output};
use crate::clock;
use crate::text::short;
use ashlar_image::report::ServiceState;
use clap::Subcommand;
use hyper::Method;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum Service {
    /// Start it now
    Start {
        /// Its name
        name: String,
    },
    /// Stop it, until it is started again
    Stop {
        /// Its name
        name: String,
    },
    /// Stop it, then start it
    Restart {
        /// Its name
        name: String,
    },
}

pub(super) fn list(node: &Node) -> Outcome {
    let services: Vec<ServiceState> = node.get("/v1/services")?;
    if !node.json {
        if services.is_empty() {
            output::print("there are no services and no containers");
        } else {
            output::print(&table(&services));
        }
    }
    DONE
}

impl Service {
    pub(super) fn run(self, node: &Node) -> Outcome {
        let (name, action, done) = match &self {
            Self::Start { name } => (name, "start", "is started"),
            Self::Stop { name } => (name, "stop", "is stopped"),
            Self::Restart { name } => (name, "restart", "is restarted"),
        };
        let path = format!("/v1/services/{}/{action}", crate::api::encode(name));
        node.connect()?.call(Method::POST, &path, Vec::new())?;
        if !node.json {
            output::print(&format!("{name} {done}; `ashlarctl services` tells how it goes"));
        }
        DONE
    }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    // Tenths of a KiB, rounded down.
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units.get(unit).copied().unwrap_or_default())
}

/// The table of services, printable.
pub(super) fn table(services: &[ServiceState]) -> String {
    let head = ["NAME", "KIND", "STATE", "READY", "STARTS", "MEMORY", "CPU", "LAST END OR PROBLEM"];
    let mut rows = vec![head.map(str::to_owned)];
    for service in services {
        let usage = service.usage;
        let last = service.problem.as_ref().or(service.last_exit.as_ref()).or(service.status.as_ref());
        rows.push([
            short(&service.name, usize::MAX),
            if service.container { "container" } else { "service" }.to_owned(),
            service.phase.name().to_owned(),
            if service.ready { "yes" } else { "no" }.to_owned(),
            service.starts.to_string(),
            usage.memory.map_or("-".to_owned(), size),
            usage.cpu.map_or("-".to_owned(), |cpu| clock::span(Duration::from_micros(cpu))),
            last.map_or("-".to_owned(), |text| short(text, usize::MAX)),
        ]);
    }
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in
            [(0, "0.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (u64::MAX, "1677721.5 TiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }
}
