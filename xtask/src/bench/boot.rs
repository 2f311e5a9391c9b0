//! From the kernel's start to a container that answers: ours beside a systemd image of the same kernel and packages.
//!
//! Both start from the same firmware with the same keys and Secure Boot, with the same devices, memory, processors and
//! command line; the peer's kernel image is signed by our keys. Both run the same bundle with the same crun. Times are the
//! guest's own, since its kernel began; processor seconds are the emulator's, from the kernel's first line on the console to
//! the container's answer at the host, and hold on a busy machine too.

use super::Settings;
use super::lab::{Lab, ROOTS};
use super::measure::{Run, settle};
use super::table::Table;
use crate::debian::{Debian, is_root};
use crate::guest::{self, CONTAINER_PORT, LIMIT, PROBE_PORT, Process, get, told};
use ashlar_qemu::{Machine, MachineConfig};
use std::path::Path;
use std::time::Duration;

const KERNEL: &str = "kernel starts init";
const READY: &str = "everything is up";
const ANSWER: &str = "container answers";
const MEMORY: &str = "memory without workloads";
/// How much faster ours is to be.
const GOAL: f64 = 5.0;
/// Most memory of all processes of ours without workloads, in bytes.
const MEMORY_GOAL: f64 = 40e6;
/// What is no part of the system itself: the container and the probe (busybox goes by what it does), and crun.
const WORKLOADS: [&str; 8] = ["busybox", "crun", "grep", "httpd", "processes", "sh", "sleep", "wget"];
/// How long a machine that is up is left alone before its memory is looked at: udev's workers and half-started
/// consoles of the peer are gone by then.
const REST: Duration = Duration::from_secs(15);
/// How long a guest may take to switch itself off.
const POWER_OFF: Duration = Duration::from_secs(120);

/// What the container does: it serves, asks itself until it gets an answer, and serves the time of that.
const START: &str = "mkdir /tmp/www
echo Hello. > /tmp/www/index.html
httpd -p 8080 -h /tmp/www
until wget -q -O /dev/null http://127.0.0.1:8080/; do :; done
read up idle < /proc/uptime
echo $up > /tmp/new
mv /tmp/new /tmp/www/answered
trap 'exit 0' TERM
sleep 1000000 &
wait
";

/// The command line of the example without what is only ours.
const CMDLINE: &str = "console=tty0 console=ttyS0,115200 lockdown=integrity panic=30 oops=panic";

/// The recipe: the container with that command, and the probe.
fn recipe(lab: &Lab) -> Result<String, String> {
    let [example, _] = ROOTS;
    let more = format!(
        "[[container]]\nname = \"hello\"\ncommand = [\"/usr/bin/busybox\", \"sh\", \"/srv/start\"]\n\
         [[container.file]]\npath = \"/srv/start\"\ncontent = '''\n{START}'''\n\
         [service.probe]\ncommand = [\"/usr/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"{PROBE_PORT}\", \"-h\", \"/usr/lib/bench\"]\n\
         [[file]]\npath = \"/usr/lib/bench/cgi-bin/processes\"\nmode = \"0755\"\ncontent = '''\n{}'''\n\
         [[file]]\npath = \"/usr/lib/bench/cgi-bin/config\"\nmode = \"0755\"\ncontent = '''\n{CONFIG}'''\n",
        guest::PROCESSES
    );
    lab.recipe(example, None, &["busybox-static"], &more)
}

/// Tells how init configured the container.
const CONFIG: &str = "#!/usr/bin/busybox sh
printf 'Content-Type: application/json\\r\\n\\r\\n'
/usr/bin/busybox cat /run/ashlar/containers/hello/config.json
";

/// The units of the peer.
const UNITS: [(&str, &str); 3] = [
    (
        "hello.service",
        "[Service]\nExecStart=/usr/bin/crun --root /run/crun --cgroup-manager=cgroupfs run --bundle /usr/lib/bench/hello hello\n\
         ExecStop=/usr/bin/crun --root /run/crun kill hello TERM\n\
         Restart=always\nDelegate=yes\n",
    ),
    (
        "probe.service",
        "[Service]\nExecStart=/usr/bin/busybox httpd -f -p 8081 -h /usr/lib/bench\nRestart=always\n",
    ),
    // As ours: everything was started, and the network has its address.
    (
        "bench-ready.service",
        "[Unit]\nAfter=multi-user.target network-online.target\nWants=network-online.target\n\
         [Service]\nType=oneshot\nExecStart=/usr/bin/busybox sh /usr/lib/bench/ready\n",
    ),
];

const PEER_READY: &str = "read up idle < /proc/uptime
echo $up > /usr/lib/bench/ready-after
echo \"bench: ready after $up s\" > /dev/console
";

const PEER_OFF: &str = "#!/usr/bin/busybox sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
exec /usr/bin/systemctl poweroff --no-block
";

/// Makes the peer's disk: the same container, with the configuration that our init made for it.
fn peer(lab: &Lab, kernel: &str, config: &str, rootfs: &Path) -> Result<String, String> {
    let packages = ["systemd", "systemd-sysv", "crun", "ca-certificates", "tzdata"];
    let debian = Debian::tree(Path::new(&lab.path("systemd")), &packages, Some(kernel))?;
    debian.copy(rootfs, "/usr/lib/ashlar/containers/hello/rootfs")?;
    // The files that are put over the container's own lie in /run, which is empty at the start.
    debian.write(
        "/usr/lib/bench/hello/config.json",
        0o644,
        &config.replace("\"/run/ashlar/", "\"/usr/lib/bench/run/"),
    )?;
    let name = "/usr/lib/bench/run/containers/hello/hostname";
    debian.write(name, 0o644, "hello\n")?;
    debian.write("/usr/lib/bench/run/containers/hello/hosts", 0o644, "127.0.0.1 localhost hello\n")?;
    debian.write("/usr/lib/bench/run/resolv.conf", 0o644, "")?;
    debian.write("/usr/lib/bench/cgi-bin/processes", 0o755, guest::PROCESSES)?;
    debian.write("/usr/lib/bench/cgi-bin/off", 0o755, PEER_OFF)?;
    debian.write("/usr/lib/bench/ready", 0o644, PEER_READY)?;
    for (unit, text) in UNITS {
        debian.write(&format!("/etc/systemd/system/{unit}"), 0o644, text)?;
        debian.enable(unit, "/etc/systemd/system")?;
    }
    debian.write(
        "/etc/systemd/network/wired.network",
        0o644,
        "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
    )?;
    debian.enable("systemd-networkd.service", "/usr/lib/systemd/system")?;
    // With an identity it asks nothing on the console at its first start.
    debian.write("/etc/machine-id", 0o444, "4f0a9d5e0a4c49c1ae7b116f1d8c1e53\n")?;
    debian.write("/etc/hostname", 0o644, "debian\n")?;
    let disk = lab.path("systemd.raw");
    debian.disk(Path::new(&disk), CMDLINE, Some(Path::new(&lab.path("keys"))))?;
    Ok(disk)
}

/// What one start showed.
struct Seen {
    /// Guest's seconds until the kernel started the initrd's init.
    kernel: f64,
    /// Guest's seconds until it was ready.
    ready: f64,
    /// Guest's seconds until the container answered itself.
    answer: f64,
    /// The emulator's processor seconds from the kernel's start to the answer.
    cpu: f64,
    processes: Vec<Process>,
}

/// Processor seconds of a process so far (proc(5), `/proc/PID/stat`; the tick in that file is always 1/100 s).
fn cpu(pid: Option<&u32>) -> Result<f64, String> {
    let path = format!("/proc/{}/stat", pid.copied().unwrap_or_default());
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let words = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    // After the name: state, parent, …; user and system time are the 14th and 15th of all.
    let ticks: Vec<f64> = words.skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| format!("the guest tells `{}` for a time", text.trim()))
}

/// When the kernel started init, by its own line on the console: `[    3.250000] Run /init as init process`.
fn kernel_done(console: &str) -> Option<f64> {
    let line = console.lines().find(|line| line.contains("] Run /init as init process"))?;
    line.split_once('[')?.1.split_once(']')?.0.trim().parse().ok()
}

/// Starts a machine and looks at it; `ready` waits for it to be up and gives its time, `off` switches it off.
fn start(
    config: &MachineConfig,
    ready: impl FnOnce(&Machine) -> Result<f64, String>,
    off: impl FnOnce(&Machine) -> Result<(), String>,
) -> Result<Seen, String> {
    let machine = Machine::start(config).map_err(told)?;
    machine.wait_console("Linux version", LIMIT).map_err(told)?;
    let before = cpu(machine.pids().first())?;
    let answer = seconds(&get(&machine, CONTAINER_PORT, "answered", LIMIT)?)?;
    let cpu = cpu(machine.pids().first())? - before;
    let ready = ready(&machine)?;
    let kernel = kernel_done(&machine.console()).ok_or("the console does not show when init was started")?;
    std::thread::sleep(REST);
    let processes = guest::processes(&get(&machine, PROBE_PORT, "cgi-bin/processes", LIMIT)?);
    off(&machine)?;
    Ok(Seen { kernel, ready, answer, cpu, processes })
}

fn ours(config: &MachineConfig) -> Result<Seen, String> {
    let ready = |machine: &Machine| Ok(machine.wait_report(LIMIT).map_err(told)?.uptime_seconds);
    start(config, ready, |machine| machine.power_down(POWER_OFF).map(drop).map_err(told))
}

fn theirs(config: &MachineConfig) -> Result<Seen, String> {
    let ready = |machine: &Machine| {
        machine.wait_console("bench: ready", LIMIT).map_err(told)?;
        seconds(&get(machine, PROBE_PORT, "ready-after", LIMIT)?)
    };
    start(config, ready, |machine| {
        get(machine, PROBE_PORT, "cgi-bin/off", LIMIT)?;
        machine.wait_exit(POWER_OFF).map(drop).map_err(told)
    })
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn note(table: &mut Table, who: &str, seen: &Seen) {
    table.figure(&format!("{who}: {KERNEL}"), UPTIME, seen.kernel);
    table.run(&format!("{who}: {ANSWER}"), Run { wall: seen.answer, cpu: seen.cpu, peak: None });
    table.figure(&format!("{who}: {READY}"), UPTIME, seen.ready);
    table.figure(&format!("{who}: {ANSWER}"), UPTIME, seen.answer);
    let own: Vec<&Process> =
        seen.processes.iter().filter(|process| !WORKLOADS.contains(&process.name.as_str())).collect();
    let row = format!("{who}: {MEMORY}");
    table.figure(&row, "processes", own.len() as f64);
    table.figure(&row, "rss_bytes", own.iter().map(|process| process.rss).sum::<u64>() as f64);
    if own.iter().all(|process| process.pss.is_some()) {
        table.figure(&row, "pss_bytes", own.iter().filter_map(|process| process.pss).sum::<u64>() as f64);
    }
    let list: Vec<String> = own
        .iter()
        .map(|process| format!("{} {:.1} MiB", process.name, process.rss as f64 / f64::from(1 << 20)))
        .collect();
    eprintln!("xtask: {who}: ready {:.2} s, answer {:.2} s; {}", seen.ready, seen.answer, list.join(", "));
}

const UPTIME: &str = "uptime_seconds";
const OURS: &str = "ashlar";
const THEIRS: &str = "systemd";

/// Measures and gives the table.
pub fn run(settings: &Settings) -> Result<Table, String> {
    let mut table = Table::default();
    if !is_root()? {
        table.note("skipped: only root can unpack the peer's tree with its owners; run it as root".into());
        return Ok(table);
    }
    let lab = Lab::new()?;
    let recipe = recipe(&lab)?;
    lab.fill(&recipe, "boot")?;
    let release = lab.path("boot");
    lab.build(&recipe, "boot", "boot", &[])?;
    eprintln!("xtask: first start of ours");
    let state = lab.path("boot-machine");
    let first = guest::install(lab.ashlar(), &release, &state, &["cgi-bin/config"])?;
    let kernel = first["report"]["kernel"].as_str().ok_or("the report has no kernel")?;
    let config = first["pages"][0].as_str().ok_or("the machine told no configuration of its container")?;
    let variables = Path::new(&state).join("variables.fd");
    let variables = std::fs::read(&variables).map_err(|e| format!("`{}`: {e}", variables.display()))?;

    let tree = lab.extract(&format!("{release}/root.erofs"), "boot-root")?;
    let rootfs = Path::new(&tree).join("usr/lib/ashlar/containers/hello/rootfs");
    let disk = peer(&lab, kernel, config, &rootfs)?;
    let our_config = guest::machine(&format!("{release}/disk.raw"), &state, None)?;
    let state = lab.path("systemd-machine");
    super::lab::remove(&state)?;
    let their_config = guest::machine(&disk, &state, Some(variables))?;
    eprintln!("xtask: first start of systemd's");
    theirs(&their_config)?;

    for round in 0..settings.runs {
        eprintln!("xtask: round {} of {}", round + 1, settings.runs);
        settle()?;
        note(&mut table, OURS, &ours(&our_config)?);
        settle()?;
        note(&mut table, THEIRS, &theirs(&their_config)?);
    }
    for what in [KERNEL, READY, ANSWER, MEMORY] {
        table.beside(&format!("{OURS}: {what}"), &format!("{THEIRS}: {what}"));
    }
    for what in [READY, ANSWER] {
        let [ours, theirs] = [OURS, THEIRS].map(|who| table.median(&format!("{who}: {what}"), UPTIME));
        let times = theirs / ours;
        table.goal(
            &format!("{OURS}: {what}"),
            &format!("{times:.1} times as fast, to be at least {GOAL}"),
            times >= GOAL,
        );
    }
    let beyond = |who: &str| {
        let at = |what: &str| table.median(&format!("{who}: {what}"), UPTIME);
        at(ANSWER) - at(KERNEL)
    };
    let times = beyond(THEIRS) / beyond(OURS);
    table.note(format!(
        "from init's start to the container's answer, without the kernel: {times:.1} times as fast"
    ));
    let row = format!("{OURS}: {MEMORY}");
    let memory = table.median(&row, "rss_bytes");
    table.goal(&row, "less than 40 MB", memory < MEMORY_GOAL);
    table.note(
        "times since the kernel began, by the guest's clock; `cpu`: of the emulator until the answer".into(),
    );
    table.note("ours is ready only when a container has stayed up for two seconds".into());
    table.note("memory: all processes but the container, crun and the probe".into());
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_time_is_read_from_the_console() {
        let console =
            "[    0.000000] Linux version 6\n[    3.250001] Run /init as init process\n[    3.3] x\n";
        assert_eq!(kernel_done(console), Some(3.250_001));
        assert_eq!(kernel_done("Run /init as init process"), None);
    }
}
