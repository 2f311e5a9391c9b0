//! What the types of a recipe do not say.

use super::container::Keys;
use super::{Compression, Ready, Recipe, nearest};
use ashlar_image::capability;
use ashlar_image::layout::MIB;
use ashlar_image::manifest::{
    ContainerNetwork, MAX_NAME, MAX_START_COUNT, RESERVED_NAMES, Restart, Start, SystemCalls, circle,
};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a name can be part of a path, a cgroup and an os-release value.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && !name.starts_with(['.', '-'])
}

/// Whether a path is absolute and leads nowhere else than it says.
fn is_clean(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0')
    })
}

fn check_limits(cpus: Option<f64>, pids: Option<u32>, files: Option<u32>) -> Result<(), String> {
    if cpus.is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus)) {
        return Err("`cpus` is a number from 0.01 to 1024".into());
    }
    if pids.is_some_and(|pids| !(1..=4_194_304).contains(&pids)) {
        return Err("`pids` is a number from 1 to 4194304".into());
    }
    if files.is_some_and(|files| !(16..=1_048_576).contains(&files)) {
        return Err("`open-files` is a number from 16 to 1048576".into());
    }
    Ok(())
}

fn check_capabilities(names: &[String]) -> Result<(), String> {
    match capability::set(names.iter().map(String::as_str)) {
        Ok(_) => Ok(()),
        Err(unknown) => match nearest(unknown, capability::NAMES.into_iter()) {
            Some(near) => Err(format!("there is no capability `{unknown}`; did you mean `{near}`?")),
            None => {
                Err(format!("there is no capability `{unknown}`; they are called as CAP_NET_BIND_SERVICE"))
            }
        },
    }
}

impl Keys<'_> {
    /// Checks what does not depend on others.
    fn check(&self, name: &str) -> Result<(), String> {
        const DAY: u32 = 24 * 60 * 60;
        for (key, value) in [
            ("start-timeout", self.start_timeout),
            ("stop-timeout", self.stop_timeout),
            ("watchdog", self.watchdog),
        ] {
            if value.is_some_and(|seconds| !(1..=DAY).contains(&seconds)) {
                return Err(format!("`{key}` is a number of seconds from 1 to {DAY}"));
            }
        }
        if let Some(limit) = self.start_limit
            && !((1..=MAX_START_COUNT).contains(&limit.count) && (1..=DAY).contains(&limit.interval))
        {
            return Err(format!(
                "`start-limit` has a `count` from 1 to {MAX_START_COUNT} and an `interval` from 1 to {DAY} seconds"
            ));
        }
        if *self.ready == Ready::Tcp(0) {
            return Err("`ready = { tcp = … }` is a port from 1 to 65535".into());
        }
        if self.after.iter().chain(self.requires).any(|needed| needed == name) {
            return Err("it cannot wait for itself".into());
        }
        Ok(())
    }
}

/// The text to point at and the message.
type Complaint = (String, String);

fn bad<T>(needle: &str, message: String) -> Result<T, Complaint> {
    Err((needle.to_owned(), message))
}

impl Recipe {
    pub(super) fn check(&self) -> Result<(), Complaint> {
        self.check_image()?;
        self.check_partitions()?;
        self.check_containers()?;
        self.check_files()?;
        self.check_debian()
    }

    fn check_image(&self) -> Result<(), Complaint> {
        for (key, value) in [("id", &self.image.id), ("version", &self.image.version)] {
            if !is_name(value) {
                let rule = "use lower-case letters, digits, `-`, `_`, `.` (at most 64)";
                return bad(value, format!("image.{key} `{value}`: {rule}"));
            }
        }
        if self.kernel.cmdline.split_ascii_whitespace().any(|word| {
            word.starts_with("roothash=") || word.starts_with("ashlar.") || word.starts_with("root=")
        }) {
            let message = "kernel.cmdline: `root=`, `roothash=` and `ashlar.…` are written by the builder";
            return bad(&self.kernel.cmdline, message.into());
        }
        let levels = match self.root.compression {
            Compression::None | Compression::Lz4 => 0..=0,
            Compression::Lz4hc => 3..=12,
            Compression::Zstd => 1..=22,
        };
        if let Some(level) = self.root.compression_level
            && !levels.contains(&level)
        {
            let message = if *levels.end() == 0 {
                "root.compression-level: only `lz4hc` and `zstd` have levels".to_owned()
            } else {
                format!("root.compression-level: use {} to {}", levels.start(), levels.end())
            };
            return bad("compression-level", message);
        }
        if let Some(size) = self.root.cluster_size
            && !(size.0.is_power_of_two() && (4096..=1 << 20).contains(&size.0))
        {
            return bad("cluster-size", "root.cluster-size: use a power of two from 4KiB to 1MiB".into());
        }
        Ok(())
    }

    fn check_partitions(&self) -> Result<(), Complaint> {
        let slots = [Some(&self.partitions), self.lint.smallest_slot.as_ref()];
        for sizes in slots.into_iter().flatten().map(super::Partitions::sizes) {
            for (key, size) in
                [("esp", sizes.esp), ("root", sizes.root), ("verity", sizes.verity), ("state", sizes.state)]
            {
                if size == 0 || !size.is_multiple_of(MIB) {
                    let message = format!("partitions.{key}: use a whole number of MiB, at least one");
                    return bad("[partitions]", message);
                }
            }
        }
        Ok(())
    }

    fn check_containers(&self) -> Result<(), Complaint> {
        let mut seen = BTreeSet::new();
        for container in &self.containers {
            let name = &container.name;
            let complain = |what: &str| bad(name, format!("container `{name}`: {what}"));
            if !is_name(name) || !seen.insert(name.as_str()) {
                return complain("names are unique and use lower-case letters, digits, `-`, `_`");
            }
            if container.origins() > 1 || (container.origins() == 0 && container.sources.is_empty()) {
                return complain(
                    "give either `packages` or `oci-layout` or `oci`, or trees with `[[container.source]]`",
                );
            }
            if container.command.is_empty() && !container.is_oci() {
                return complain("`command` is missing");
            }
            let ready = match &container.ready {
                Ready::Tcp(_) if container.network == ContainerNetwork::Private => {
                    Err("`ready = { tcp = … }` needs `network = \"host\"`: nobody else reaches its ports"
                        .to_owned())
                }
                Ready::File(path) if !is_clean(path) => {
                    Err("`ready = { file = … }` is an absolute path in the container, without `.` and `..`"
                        .into())
                }
                _ => Ok(()),
            };
            let checked = ready
                .and_then(|()| check_limits(container.cpus, container.pids, container.open_files))
                .and_then(|()| check_capabilities(&container.capabilities))
                .and_then(|()| container.keys().check(name));
            if let Err(what) = checked {
                return complain(&what);
            }
        }
        for (name, service) in &self.services {
            let complain = |what: &str| bad(&format!("service.{name}"), format!("service `{name}`: {what}"));
            if !is_name(name) || !service.command.first().is_some_and(|program| program.starts_with('/')) {
                return complain("`command` starts with the program's absolute path");
            }
            if !seen.insert(name) {
                return complain("a container has the same name");
            }
            let ready = match &service.ready {
                Ready::File(path) if !is_clean(path) || !path.starts_with("/run/") => {
                    Err("`ready = { file = … }` is a path below /run, without `.` and `..`".to_owned())
                }
                _ => Ok(()),
            };
            let checked = ready
                .and_then(|()| check_limits(service.cpus, service.pids, service.open_files))
                .and_then(|()| check_capabilities(&service.capabilities))
                .and_then(|()| service.keys().check(name));
            if let Err(what) = checked {
                return complain(&what);
            }
            if service.new_privileges && service.system_calls == SystemCalls::Common {
                return complain(
                    "`new-privileges` needs `system-calls = \"all\"`: the kernel allows no other",
                );
            }
        }
        if let Some(name) = RESERVED_NAMES.iter().find(|name| seen.contains(**name)) {
            return bad(name, format!("`{name}` cannot be a name: the log calls others so"));
        }
        self.check_dependencies(&seen)
    }

    fn check_dependencies(&self, names: &BTreeSet<&str>) -> Result<(), Complaint> {
        let containers = self.containers.iter().map(|container| (container.name.as_str(), container.keys()));
        let services = self.services.iter().map(|(name, service)| (name.as_str(), service.keys()));
        let dependencies: BTreeMap<&str, Vec<&str>> = containers
            .chain(services)
            .map(|(name, keys)| (name, keys.after.iter().chain(keys.requires).map(String::as_str).collect()))
            .collect();
        for (name, needs) in &dependencies {
            if let Some(unknown) = needs.iter().find(|needed| !names.contains(*needed)) {
                let known: Vec<&str> = names.iter().copied().collect();
                let message = format!(
                    "`{name}` waits for `{unknown}`, which is no service or container of this recipe; it has: {}",
                    known.join(", ")
                );
                return bad(unknown, message);
            }
        }
        for container in &self.containers {
            let why = match (container.debug, container.start) {
                (true, Start::OnRequest) => {
                    let message =
                        format!("`{}` is either for debugging or started on request", container.name);
                    return bad(&container.name, message);
                }
                (true, Start::Boot) => "which is for debugging and not started",
                (false, Start::OnRequest) => "which is only started on request",
                (false, Start::Boot) => continue,
            };
            if container.start == Start::OnRequest && container.restart == Restart::OnFailure {
                let message = format!(
                    "`{}` is started on request, each time once: `restart` is not for it",
                    container.name
                );
                return bad(&container.name, message);
            }
            if let Some((name, _)) =
                dependencies.iter().find(|(_, needs)| needs.contains(&container.name.as_str()))
            {
                let message = format!("`{name}` waits for `{}`, {why}", container.name);
                return bad(name, message);
            }
        }
        match circle(&dependencies) {
            Some(circle) => {
                let first = circle.first().copied().unwrap_or_default();
                bad(first, format!("these wait for each other in a circle: {}, {first}", circle.join(", ")))
            }
            None => Ok(()),
        }
    }

    fn check_files(&self) -> Result<(), Complaint> {
        for file in self.files.iter().chain(self.containers.iter().flat_map(|c| &c.files)) {
            let path = &file.path;
            if file.content.is_some() == file.source.is_some() {
                return bad(path, format!("file `{path}`: give either `content` or `source`"));
            }
            if file.ownership().is_none() {
                return bad(path, format!("file `{path}`: `mode` is an octal string such as \"0644\""));
            }
        }
        for directory in &self.directories {
            let path = &directory.path;
            if directory.ownership().is_none() {
                return bad(path, format!("directory `{path}`: `mode` is an octal string such as \"0755\""));
            }
        }
        let sources = || self.sources.iter().chain(self.containers.iter().flat_map(|c| &c.sources));
        let paths = (self.files.iter().chain(self.containers.iter().flat_map(|c| &c.files)).map(|f| &f.path))
            .chain(self.directories.iter().map(|directory| &directory.path))
            .chain(self.symlinks.iter().map(|link| &link.path))
            .chain(sources().map(|source| &source.into));
        for path in paths {
            if !path.starts_with('/') {
                return bad(path, format!("`{path}`: the path in the image must be absolute"));
            }
        }
        for source in sources() {
            if source.directory.is_some() == source.tar.is_some() {
                return bad("source", "a source is either a `directory` or a `tar`".into());
            }
            if source.sha256.is_some() && source.tar.is_none() {
                return bad("sha256", "only an archive (`tar`) has a `sha256`".into());
            }
        }
        Ok(())
    }

    fn check_debian(&self) -> Result<(), Complaint> {
        let debian = &self.debian;
        if debian.snapshot.is_some() && debian.snapshot_mirror.is_none() {
            return bad(
                "snapshot",
                "debian.snapshot needs `snapshot-mirror`, a URL with `{timestamp}` in it".into(),
            );
        }
        let suites = std::iter::once(&debian.suite).chain(debian.sources.iter().map(|source| &source.suite));
        for suite in suites {
            if suite.is_empty()
                || suite.contains(|c: char| c.is_whitespace() || c == '\\')
                || suite.contains("..")
            {
                return bad(suite, format!("debian: `{suite}` is not the name of a suite"));
            }
        }
        for pin in &debian.pins {
            let needle = pin.packages.first().map_or("pin", String::as_str);
            if pin.packages.is_empty() || pin.suite.is_some() == pin.version.is_some() {
                return bad(
                    needle,
                    "debian.pin: name `packages`, and either a `suite` or a `version`".into(),
                );
            }
        }
        Ok(())
    }
}
