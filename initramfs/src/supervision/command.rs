//! What is executed for a service or container, and what is prepared for it.

use super::confine::Confinement;
use crate::error::Error;
use crate::oci::bundle::{self, Extras};
use crate::{cgroup, mounts};
use ashlar_image::manifest::{Container, Readiness, Restart, Service, Start, Supervision};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The OCI runtime in the root.
pub const RUNTIME: &str = "/usr/bin/crun";
/// Where it keeps its state.
const RUNTIME_STATE: &str = "/run/crun";
/// Where the sockets lie on which units tell about themselves.
#[cfg(not(test))]
const NOTIFY_FOLDER: &str = "/run/ashlar/notify";
/// Environment of services unless the manifest says otherwise.
const PATH: &str = "/usr/sbin:/usr/bin";

/// What runs.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A program of the root.
    Service(Box<Service>),
    /// A container of the image.
    Container(Box<Container>),
}

impl Kind {
    /// What it needs and what is expected of it.
    pub const fn supervision(&self) -> &Supervision {
        match self {
            Self::Service(service) => &service.supervision,
            Self::Container(container) => &container.supervision,
        }
    }

    /// When it is started again.
    pub const fn restart(&self) -> Restart {
        match self {
            Self::Service(service) => service.restart,
            Self::Container(_) if self.is_on_request() => Restart::Never,
            Self::Container(container) => container.restart,
        }
    }

    /// Whether it is started only when somebody asks for it, each time once.
    pub const fn is_on_request(&self) -> bool {
        matches!(self, Self::Container(container) if matches!(container.start, Start::OnRequest))
    }

    /// Whether only a machine configuration can start it, for a limited time.
    pub const fn is_for_debugging(&self) -> bool {
        matches!(self, Self::Container(container) if container.debug)
    }
}

/// What a machine configuration changes in what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Environment over the manifest's.
    pub environment: BTreeMap<String, String>,
    /// Memory in bytes.
    pub memory_max: Option<u64>,
    /// Processor time in thousandths of one processor.
    pub cpu_milli: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
}

/// All that is needed to start something.
#[derive(Debug)]
pub struct Launch {
    /// What is executed.
    pub command: Command,
    /// `cgroup.procs` of the group in which it runs.
    pub procs: fs::File,
    /// What it may not do.
    pub confinement: Confinement,
}

/// Where the sockets lie.
pub fn notify_folder() -> PathBuf {
    #[cfg(test)]
    return std::env::temp_dir().join(format!("ashlar-test-notify-{}", std::process::id()));
    #[cfg(not(test))]
    PathBuf::from(NOTIFY_FOLDER)
}

/// Prepares a start: control group, bundle, environment. `socket` is where it can tell about itself.
pub fn launch(
    name: &str,
    kind: &Kind,
    overrides: &Overrides,
    socket: Option<&Path>,
) -> Result<Launch, Error> {
    let mut environment = overrides.environment.clone();
    if let Some(socket) = socket {
        let seen = match kind {
            Kind::Service(_) => socket.to_string_lossy().into_owned(),
            Kind::Container(_) => bundle::NOTIFY.to_owned(),
        };
        environment.insert("NOTIFY_SOCKET".into(), seen);
        if let Some(seconds) = kind.supervision().watchdog {
            environment.insert("WATCHDOG_USEC".into(), (u64::from(seconds) * 1_000_000).to_string());
        }
    }
    match kind {
        Kind::Service(service) => service_launch(name, service, overrides, &environment),
        Kind::Container(container) => container_launch(name, container, overrides, environment, socket),
    }
}

fn service_launch(
    name: &str,
    service: &Service,
    overrides: &Overrides,
    environment: &BTreeMap<String, String>,
) -> Result<Launch, Error> {
    let (program, arguments) = service.command.split_first().ok_or_else(|| {
        Error::io("execute", name.to_owned())(io::Error::other("the manifest gives no command"))
    })?;
    if let Readiness::File(path) = &service.supervision.ready {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path)(error));
            }
            _ => {}
        }
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(&service.environment)
        .envs(environment)
        .current_dir("/");
    let limits = cgroup::Limits {
        memory_max: overrides.memory_max.or(service.memory_max),
        cpu_milli: overrides.cpu_milli.or(service.cpu_milli),
        pids_max: overrides.pids_max.or(service.pids_max),
    };
    let confinement = Confinement::of(name, service)?;
    Ok(Launch { command, procs: cgroup::enter_service(name, limits)?, confinement })
}

/// Writes the container's bundle and gives the runtime's command line.
fn container_launch(
    name: &str,
    container: &Container,
    overrides: &Overrides,
    environment: BTreeMap<String, String>,
    socket: Option<&Path>,
) -> Result<Launch, Error> {
    let container = Container {
        memory_max: overrides.memory_max.or(container.memory_max),
        cpu_milli: overrides.cpu_milli.or(container.cpu_milli),
        pids_max: overrides.pids_max.or(container.pids_max),
        ..container.clone()
    };
    let folder = bundle::folder(name);
    mounts::make_dir(&folder, 0o700)?;
    let mut overlays = bundle::overlays(name, &container);
    // Only over a file of its own: a link could lead anywhere.
    overlays.retain(|overlay| {
        fs::symlink_metadata(bundle::rootfs(name).join(overlay.target)).is_ok_and(|found| found.is_file())
    });
    let extras = Extras { overlays: &overlays, environment, notify: socket };
    for (file, text) in [
        ("config.json", bundle::config(name, &container, &extras).to_string()),
        ("hostname", format!("{name}\n")),
        ("hosts", bundle::hosts(name)),
    ] {
        let path = folder.join(file);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    // A runtime that was killed leaves its state behind, and would refuse the name. Nothing of the container is
    // alive: its control group was killed when it ended.
    let state = Path::new(RUNTIME_STATE).join(name);
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", state)(error));
        }
        _ => {}
    }
    let mut command = Command::new(RUNTIME);
    command
        .args(["--root", RUNTIME_STATE, "--cgroup-manager=cgroupfs", "run", "--bundle"])
        .arg(&folder)
        .arg(name)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/");
    Ok(Launch { command, procs: cgroup::enter_runtime(name)?, confinement: Confinement::runtime() })
}
