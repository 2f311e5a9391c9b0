//! `cargo xtask torture`: hard power cuts at random times, again and again, on one machine.
//!
//! A service in the image writes numbered files to the state volume and tells each number on the console once the file is
//! flushed. Afterwards a Debian machine, which shares no code with ours, opens the volume with the recovery key, looks at
//! its file system and lists the files: none that was told may be missing. The machine itself must come up good, and no
//! cut may have counted as an attack on its TPM.
//!
//! The machine's disk is a qcow2 overlay on purpose: what its guest wrote and did not flush into a new cluster is lost
//! with QEMU, as in the cache of a disk.

use crate::bench::lab::{Lab, ROOTS, remove};
use crate::bench::measure::measure;
use crate::debian::{Debian, is_root};
use crate::guest::{self, LIMIT, told};
use ashlar_qemu::{Machine, MachineConfig, Stopped};
use clap::Args;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often, and where to begin.
#[derive(Args)]
pub struct Torture {
    /// Power cuts
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cuts: u32,
    /// Seed of the times, to have the same ones again; of the clock unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds after the start from which on the power may be cut
    #[arg(long, default_value_t = 4.0)]
    from: f64,
    /// Seconds after the start until which the power is cut
    #[arg(long, default_value_t = 25.0)]
    to: f64,
    /// Leave out what needs the state volume: the files, the file system, the recovery key
    #[arg(long)]
    without_volume: bool,
}

/// What the service says before a number.
const WRITTEN: &str = "ashlar-probe: written ";
/// What the console says before the recovery key at the first start.
const RECOVERY_KEY: &str = "recovery key: ";

/// Writes files, flushes each one and its folder, then tells its number. A file has its number 512 times.
const PROBE: &str = "d=/var/lib/probe
mkdir -p $d
n=$(ls $d | sort -n | tail -n 1)
n=${n:-0}
while :; do
    n=$((n + 1))
    i=0
    while [ $i -lt 512 ]; do echo $n; i=$((i + 1)); done > $d/.new
    sync $d/.new
    mv $d/.new $d/$n
    sync $d
    echo \"ashlar-probe: written $n\" > /dev/console
    sleep 0.1
done
";

/// What the judge runs in the place of an init. Everything that it says begins with `judge: `.
const JUDGE: &str = "#!/usr/bin/busybox sh
say() { echo \"judge: $*\" > /dev/console; }
end() { say end; sync; poweroff -f; }
exec 2> /dev/console
export PATH=/usr/sbin:/usr/bin
mount -t devtmpfs dev /dev 2>/dev/null
modprobe dm-crypt
part=$(blkid -t PARTLABEL=state -o device) || { say no state partition; end; }
cryptsetup open --type luks2 --key-file /etc/judge.key $part state || { say the volume does not open; end; }
say opened
mkdir -p /mnt
mount -t ext4 /dev/mapper/state /mnt || { say the file system cannot be mounted; end; }
folder=$(find /mnt -type d -path '*lib/probe' | head -n 1)
for file in $folder/*; do
    n=${file##*/}
    if [ \"$(uniq -c $file | tr -s ' ')\" = \" 512 $n\" ]; then say file $n; else say damaged $n; fi
done
umount /mnt
e2fsck -fn /dev/mapper/state > /tmp/fsck 2>&1
say e2fsck $?
sed 's/^/judge: /' /tmp/fsck > /dev/console
end
";

/// Numbers after a prefix, one a line. A last line without its end may be cut off in the middle of a number.
fn numbers(text: &str, prefix: &str) -> BTreeSet<u64> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| line.split_once(prefix)?.1.trim().parse().ok()).collect()
}

/// The next of evenly distributed numbers (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A time between two others.
fn between(state: &mut u64, from: f64, to: f64) -> Duration {
    #[allow(clippy::cast_precision_loss)] // 53 bits
    let part = (random(state) >> 11) as f64 / (1_u64 << 53) as f64;
    Duration::from_secs_f64((to - from).mul_add(part, from))
}

impl Torture {
    /// Cuts and looks.
    pub fn run(self) -> Result<(), String> {
        if !(self.from >= 0.0 && self.from <= self.to && self.to <= 3600.0) {
            return Err("--from and --to are seconds of 0 to 3600, the earlier one first".into());
        }
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let seed = self.seed.unwrap_or(clock);
        eprintln!("xtask: seed {seed}");
        let lab = Lab::new()?;
        let release = build(&lab)?;
        let state = lab.path("torture-machine");
        eprintln!("xtask: first start");
        guest::install(lab.ashlar(), &release, &state, &[])?;
        let console = std::fs::read(Path::new(&state).join("console.log")).unwrap_or_default();
        let console = ashlar_qemu::Plain::default().push(&console);
        let key = console.lines().find_map(|line| Some(line.split_once(RECOVERY_KEY)?.1.trim().to_owned()));

        let disk = format!("{release}/disk.raw");
        let config = MachineConfig { forwards: Vec::new(), ..guest::machine(&disk, &state, None)? };
        let mut written = numbers(&console, WRITTEN);
        self.cut(&config, seed, &mut written)?;
        let counter = lockout_counter(&state)?;
        eprintln!("xtask: {} files were told as written; lockout counter {counter}", written.len());
        let mut failures = Vec::new();
        if counter != 0 {
            failures.push(format!("the TPM counted {counter} failed authorisations"));
        }
        match (self.without_volume, key) {
            (true, _) => eprintln!("xtask: the volume is left out"),
            (false, None) => failures.push("the first start showed no recovery key".into()),
            (false, Some(key)) => failures.extend(judge(&lab, &state, &key, &written)?),
        }
        eprintln!("xtask: last start");
        if let Err(error) = guest::check(lab.ashlar(), &release, &state, &[]) {
            failures.push(error);
        }
        let counter = lockout_counter(&state)?;
        if counter != 0 {
            failures.push(format!("the TPM counted {counter} failed authorisations after the last start"));
        }
        if failures.is_empty() {
            println!("{} power cuts, {} files: all is whole", self.cuts, written.len());
            return Ok(());
        }
        Err(format!("after {} power cuts (seed {seed}):\n{}", self.cuts, failures.join("\n")))
    }

    /// Starts the machine and cuts its power, again and again; gathers the numbers that it told.
    fn cut(&self, config: &MachineConfig, seed: u64, written: &mut BTreeSet<u64>) -> Result<(), String> {
        let mut random = seed;
        for cut in 1..=self.cuts {
            let after = between(&mut random, self.from, self.to);
            let machine = Machine::start(config).map_err(told)?;
            let until = Instant::now() + after;
            while machine.ended().is_none() && Instant::now() < until {
                std::thread::sleep(
                    until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)),
                );
            }
            if let Some(exit) = machine.ended() {
                return Err(format!("start {cut} ended by itself ({exit}):\n{}", machine.console()));
            }
            machine.cut_power();
            // Bytes that are still in the socket were told before the cut.
            let _ = machine.wait_exit(Duration::from_secs(10));
            let console = machine.console();
            let new = numbers(&console, WRITTEN);
            eprintln!(
                "xtask: cut {cut} of {} after {:.1} s, {} files; {}",
                self.cuts,
                after.as_secs_f64(),
                new.len(),
                console
                    .lines()
                    .rfind(|line| !line.trim().is_empty())
                    .unwrap_or("the console is empty")
                    .trim()
            );
            written.extend(new);
        }
        Ok(())
    }
}

/// Builds the example with the service.
fn build(lab: &Lab) -> Result<String, String> {
    let [example, _] = ROOTS;
    // Without it the first start shows the recovery key, instead of keeping it for the owner.
    let public = lab.path("keys/recovery.pub");
    if Path::new(&public).exists() {
        std::fs::remove_file(&public).map_err(|error| format!("cannot remove `{public}`: {error}"))?;
    }
    let more = format!(
        "[service.probe]\ncommand = [\"/usr/bin/busybox\", \"sh\", \"/usr/lib/torture/probe\"]\n\
         [[file]]\npath = \"/usr/lib/torture/probe\"\ncontent = '''\n{PROBE}'''\n"
    );
    let recipe = lab.recipe(example, None, &["busybox-static"], &more)?;
    lab.fill(&recipe, "torture")?;
    lab.build(&recipe, "torture", "torture", &[])?;
    Ok(lab.path("torture"))
}

/// The count of failed authorisations in the machine's TPM, by our own reading and by tpm2-tools.
fn lockout_counter(state: &str) -> Result<u32, String> {
    let machine = Stopped::open(Path::new(state)).map_err(told)?;
    let tpm = machine.tpm().map_err(told)?;
    let counter = tpm.lockout_counter().map_err(told)?;
    let (_, text) = measure("tpm2_getcap", &["-T", &tpm.tcti(), "properties-variable"])?;
    let line = format!("TPM2_PT_LOCKOUT_COUNTER: {counter:#x}");
    if String::from_utf8_lossy(&text).lines().any(|theirs| theirs.trim() == line) {
        return Ok(counter);
    }
    Err(format!("tpm2_getcap does not say `{line}`"))
}

/// Lets a Debian machine open the volume as the last cut left it. What is wrong with it.
fn judge(lab: &Lab, state: &str, key: &str, written: &BTreeSet<u64>) -> Result<Vec<String>, String> {
    if !is_root()? {
        return Err("only root can unpack the judge's tree with its owners; run it as root".into());
    }
    let debian = Debian::tree(Path::new(&lab.path("judge")), &["cryptsetup-bin", "e2fsprogs"], None)?;
    debian.write("/usr/lib/judge", 0o755, JUDGE)?;
    debian.write("/etc/judge.key", 0o600, key)?;
    let (disk, volume) = (lab.path("judge.raw"), lab.path("judge-volume.raw"));
    debian.disk(Path::new(&disk), "console=ttyS0,115200 panic=-1 quiet init=/usr/lib/judge", None)?;
    let overlay = Stopped::open(Path::new(state)).and_then(|machine| machine.disk(0)).map_err(told)?;
    let overlay = overlay.to_str().ok_or("the machine's folder is no UTF-8")?;
    measure("qemu-img", &["convert", "-O", "raw", overlay, &volume])?;
    let folder = lab.path("judge-machine");
    remove(&folder)?;
    let config = MachineConfig {
        disks: vec![disk.into(), volume.clone().into()],
        forwards: Vec::new(),
        memory_mib: 2048,
        no_reboot: true,
        ..guest::machine("", &folder, None)?
    };
    let machine = Machine::start(&config).map_err(told)?;
    machine.wait_console("judge: end", LIMIT * 2).map_err(told)?;
    let console = machine.console();
    drop(machine);
    let _ = std::fs::remove_file(volume);
    let said = |what: &str| console.lines().any(|line| line.trim() == format!("judge: {what}"));
    let mut failures = Vec::new();
    if !said("opened") || !said("e2fsck 0") {
        let lines: Vec<&str> = console.lines().filter(|line| line.starts_with("judge: ")).collect();
        failures.push(format!("the judge says:\n{}", lines.join("\n")));
    }
    let whole = numbers(&console, "judge: file ");
    let missing: Vec<_> = written.difference(&whole).collect();
    if !missing.is_empty() {
        failures.push(format!("files that were told as written are missing or damaged: {missing:?}"));
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_cut_off_does_not_count() {
        let text = "[1] x\nashlar-probe: written 12\n[2] ashlar-probe: written 13 \nashlar-probe: written 1";
        assert_eq!(numbers(text, WRITTEN), [12, 13].into());
    }

    #[test]
    fn times_lie_where_they_should_and_repeat() {
        let times = |seed| {
            let mut state = seed;
            (0..1000).map(|_| between(&mut state, 4.0, 25.0)).collect::<Vec<_>>()
        };
        assert_eq!(times(7), times(7));
        assert_ne!(times(7), times(8));
        let (least, most) = (times(7).into_iter().min().unwrap(), times(7).into_iter().max().unwrap());
        assert!(least >= Duration::from_secs(4) && least < Duration::from_secs(5), "{least:?}");
        assert!(most <= Duration::from_secs(25) && most > Duration::from_secs(24), "{most:?}");
    }
}
