//! The `config.json` of a container: what the image's manifest says, and nothing more than it needs.

use crate::cgroup::{CPU_PERIOD, cpu_quota};
use crate::oci::seccomp;
use ashlar_image::manifest::{CONTAINERS_DIR, Container, ContainerNetwork, PIDS_MAX};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the bundles lie.
pub const FOLDER: &str = "/run/ashlar/containers";
/// Name servers, as DHCP gives them; init keeps the file.
pub const RESOLV_CONF: &str = "/run/ashlar/resolv.conf";
/// What programs find by, unless the recipe says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files: the soft limit that select(2) can handle, and a hard limit that servers may raise it to.
pub const FILES: (u64, u64) = (1024, 524_288);

/// Parts of /proc and /sys that tell about the machine or change it: hidden.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Parts that may be read only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The file tree of a container in the root.
pub fn rootfs(name: &str) -> PathBuf {
    Path::new(CONTAINERS_DIR).join(name).join("rootfs")
}

/// The bundle of a container.
pub fn folder(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// A file of the machine that is put over one in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Path in the container, without a slash before it.
    pub target: &'static str,
    /// Path in the machine.
    pub source: PathBuf,
}

/// The files that a container gets over its own: its name and addresses, and with the machine's network the
/// machine's name servers.
pub fn overlays(name: &str, container: &Container) -> Vec<Overlay> {
    let own = |target, file: &str| Overlay { target, source: folder(name).join(file) };
    let mut overlays = vec![own("etc/hostname", "hostname"), own("etc/hosts", "hosts")];
    if container.network == ContainerNetwork::Host {
        overlays.push(Overlay { target: "etc/resolv.conf", source: RESOLV_CONF.into() });
    }
    overlays
}

/// `/etc/hosts` of a container.
pub fn hosts(name: &str) -> String {
    format!("127.0.0.1 localhost {name}\n::1 localhost {name}\n")
}

fn mounts(overlays: &[Overlay]) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/tmp", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
        mount("/run", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=16m"]),
    ];
    mounts.extend(overlays.iter().map(|overlay| bind(&format!("/{}", overlay.target), &overlay.source)));
    mounts
}

fn bind(target: &str, source: &Path) -> Value {
    json!({
        "destination": target,
        "type": "bind",
        "source": source,
        "options": ["bind", "ro", "nosuid", "noexec", "nodev"],
    })
}

fn resources(container: &Container) -> Value {
    let mut resources = json!({
        "devices": [{ "allow": false, "access": "rwm" }],
    });
    if let Some(bytes) = container.memory_max {
        // With swap equal to memory no swap is used: memory.swap.max becomes 0.
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    if let Some(milli) = container.cpu_milli {
        resources["cpu"] = json!({ "quota": cpu_quota(milli), "period": CPU_PERIOD });
    }
    resources["pids"] = json!({ "limit": container.pids_max.unwrap_or(PIDS_MAX) });
    // A container of which one process is missing does not work; it is better started again whole.
    resources["unified"] = json!({ "memory.oom.group": "1" });
    resources
}

/// Where a container finds the socket on which it tells that it is ready: beside nothing else, on its own `/run`.
pub const NOTIFY: &str = "/run/ashlar-notify";

/// What holds for this start beside what the manifest says.
#[derive(Debug, Clone, Default)]
pub struct Extras<'a> {
    /// Files of the machine over the container's own.
    pub overlays: &'a [Overlay],
    /// Environment over the manifest's: what the machine configuration says, and what init itself tells.
    pub environment: BTreeMap<String, String>,
    /// The machine's end of [`NOTIFY`].
    pub notify: Option<&'a Path>,
}

/// The configuration of the container `name`. For each overlay its file tree, which is read only, must have a file.
pub fn config(name: &str, container: &Container, extras: &Extras<'_>) -> Value {
    let (soft, hard) = container.files_max.map_or(FILES, |limit| (limit.into(), limit.into()));
    let mut mounts = mounts(extras.overlays);
    if let Some(socket) = extras.notify {
        mounts.push(bind(NOTIFY, socket));
    }
    let mut environment = vec![];
    if !container.environment.contains_key("PATH") && !extras.environment.contains_key("PATH") {
        environment.push(format!("PATH={PATH}"));
    }
    let mut variables: BTreeMap<&String, &String> = container.environment.iter().collect();
    variables.extend(&extras.environment);
    environment.extend(variables.iter().map(|(key, value)| format!("{key}={value}")));

    let capabilities = &container.capabilities;
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if container.network == ContainerNetwork::Private {
        namespaces.push("network");
    }
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "terminal": false,
            "user": { "uid": container.uid, "gid": container.gid },
            "args": container.command,
            "env": environment,
            "cwd": container.working_directory,
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "inheritable": capabilities,
                "permitted": capabilities,
                "ambient": capabilities,
            },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ],
        },
        "root": { "path": rootfs(name), "readonly": true },
        "hostname": name,
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces.iter().map(|kind| json!({ "type": kind })).collect::<Vec<_>>(),
            "cgroupsPath": format!("/containers/{name}/payload"),
            "resources": resources(container),
            "seccomp": seccomp::profile(capabilities),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn container(text: &str) -> Container {
        serde_json::from_str(text).unwrap()
    }

    fn demo() -> Container {
        container(
            r#"{"command":["/usr/bin/busybox","httpd"],"network":"host","uid":65534,"gid":65534,
                "memory_max":67108864,"cpu_milli":500,"pids_max":32,"capabilities":["CAP_NET_BIND_SERVICE"]}"#,
        )
    }

    fn demo_config() -> Value {
        config("hello", &demo(), &Extras { overlays: &overlays("hello", &demo()), ..Extras::default() })
    }

    #[test]
    fn what_holds_for_one_start_comes_over_the_manifest() {
        let bare = container(r#"{"command":["/a"],"environment":{"A":"1","B":"2"},"files_max":64}"#);
        let extras = Extras {
            overlays: &[],
            environment: [("B", "3"), ("NOTIFY_SOCKET", NOTIFY)].map(|(k, v)| (k.into(), v.into())).into(),
            notify: Some(Path::new("/run/ashlar/notify/a")),
        };
        let config = config("a", &bare, &extras);
        assert_eq!(
            config["process"]["env"].as_array().unwrap()[1..],
            ["A=1", "B=3", "NOTIFY_SOCKET=/run/ashlar-notify"]
        );
        assert_eq!(
            config["process"]["rlimits"][0],
            json!({ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 64 })
        );
        assert_eq!(config["process"]["rlimits"][1], json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }));
        let mounts = config["mounts"].as_array().unwrap();
        assert_eq!(mounts.last().unwrap()["source"], "/run/ashlar/notify/a");
        assert!(
            mounts.iter().position(|m| m["destination"] == "/run")
                < mounts.iter().position(|m| m["destination"] == NOTIFY)
        );
    }

    #[test]
    fn the_manifest_decides() {
        let config = demo_config();
        let process = &config["process"];
        assert_eq!(process["args"], json!(["/usr/bin/busybox", "httpd"]));
        assert_eq!(process["user"], json!({ "uid": 65534, "gid": 65534 }));
        assert_eq!(process["cwd"], "/");
        assert_eq!(process["noNewPrivileges"], true);
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            assert_eq!(process["capabilities"][set], json!(["CAP_NET_BIND_SERVICE"]), "{set}");
        }
        assert_eq!(
            config["root"],
            json!({ "path": "/usr/lib/ashlar/containers/hello/rootfs", "readonly": true })
        );
        let linux = &config["linux"];
        assert_eq!(linux["cgroupsPath"], "/containers/hello/payload");
        assert_eq!(linux["resources"]["memory"]["limit"], 67_108_864);
        assert_eq!(linux["resources"]["cpu"], json!({ "quota": 50000, "period": 100_000 }));
        assert_eq!(linux["resources"]["pids"]["limit"], 32);
        assert!(!linux["namespaces"].to_string().contains("network"));
        assert!(config["mounts"].to_string().contains("/etc/resolv.conf"));
    }

    #[test]
    fn nothing_is_given_by_default() {
        let bare = container(r#"{"command":["/a"],"environment":{"PATH":"/a","B":"c"}}"#);
        let extras = Extras { overlays: &overlays("a", &bare), ..Extras::default() };
        let config = config("a", &bare, &extras);
        assert_eq!(config["process"]["capabilities"]["bounding"], json!([]));
        assert_eq!(config["process"]["env"], json!(["B=c", "PATH=/a"]));
        assert!(config["linux"]["namespaces"].to_string().contains("network"));
        assert!(!config["mounts"].to_string().contains("resolv.conf"));
        let resources = config["linux"]["resources"].as_object().unwrap();
        assert_eq!(resources.keys().collect::<Vec<_>>(), ["devices", "pids", "unified"]);
        assert_eq!(resources["pids"]["limit"], PIDS_MAX);
        assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    }

    /// The runtime's own example must not have a key that means something and that is missing here.
    #[test]
    fn crun_writes_the_same_form() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(output) = Command::new("crun").arg("spec").current_dir(folder.path()).output() else {
            eprintln!("skipped: crun is not installed (package crun)");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read(folder.path().join("config.json")).unwrap();
        let theirs: Value = serde_json::from_slice(&text).unwrap();
        let ours = demo_config();
        for part in ["process", "root", "linux"] {
            for key in theirs[part].as_object().unwrap().keys() {
                assert!(!ours[part][key].is_null(), "{part}.{key}");
            }
        }
        let targets = |config: &Value| -> Vec<String> {
            let mounts = config["mounts"].as_array().unwrap();
            mounts.iter().map(|mount| mount["destination"].as_str().unwrap().to_owned()).collect()
        };
        let ours = targets(&ours);
        assert!(targets(&theirs).iter().all(|target| ours.contains(target)), "{theirs}");
    }
}
