//! Machines that really run. Most start a boot sector, which takes a tenth of a second; one starts the
//! UEFI firmware.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_qemu::{
    Accelerator, Boot, ConsoleCopy, DiskFormat, Firmware, Forward, Machine, MachineConfig, Network,
    OfflineTpm, QemuError, Stopped,
};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Long enough for a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether the programs are there; says what is missing if not.
fn ready() -> bool {
    for (program, package) in
        [("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils"), ("swtpm", "swtpm")]
    {
        if Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("skipped: {program} is needed (package {package})");
            return false;
        }
    }
    true
}

// Pieces of 16-bit code.
const POWER_OFF: &[u8] = &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef]; // PM1_CNT: SLP_EN, S5
const RESET: &[u8] = &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee]; // port cf9
const HANG: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];
const ENABLE_POWER_BUTTON: &[u8] = &[0xfa, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef]; // cli; PM1_EN: PWRBTN_EN
const WAIT_POWER_BUTTON: &[u8] = &[0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xfa]; // PM1_STS: PWRBTN_STS

/// Code that writes `text` to the first serial port.
fn say(text: &str) -> Vec<u8> {
    let mut code = vec![0xba, 0xf8, 0x03];
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]);
    }
    code
}

/// Code that writes `text` over sector 1 of the first disk, through the BIOS.
fn write_disk() -> Vec<u8> {
    vec![
        0x31, 0xc0, 0x8e, 0xc0, 0xbb, 0x00, 0x7c, // es:bx = this sector
        0xb8, 0x01, 0x03, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, 0xcd,
        0x13, // write one sector to sector 2
    ]
}

/// A disk whose boot sector runs `code`.
fn disk(folder: &Path, name: &str, code: &[&[u8]]) -> PathBuf {
    let mut bytes = code.concat();
    assert!(bytes.len() <= 510);
    bytes.resize(510, 0);
    bytes.extend([0x55, 0xaa]);
    bytes.resize(1 << 20, 0);
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn bios(disk: PathBuf) -> MachineConfig {
    MachineConfig {
        boot: Boot::Bios,
        tpm: false,
        memory_mib: 64,
        cpus: Some(1),
        accelerator: Accelerator::Tcg,
        network: Network::Off,
        report: false,
        no_reboot: true,
        ..MachineConfig::new(disk)
    }
}

fn sha256(path: &Path) -> [u8; 32] {
    Sha256::digest(std::fs::read(path).unwrap()).into()
}

fn alive(pid: u32) -> bool {
    // A zombie that waits for its parent is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

fn gone_soon(pids: &[u32]) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while pids.iter().any(|pid| alive(*pid)) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn a_guest_speaks_and_switches_off() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("\x1b[1mhello\x1b[0m world\r\n"), POWER_OFF, HANG]);
    let copied = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&copied);
    let console = ConsoleCopy::new(move |bytes| sink.lock().unwrap().extend_from_slice(bytes));
    let kept = dir.path().join("kept, with a comma");
    let config = MachineConfig { console: Some(console), folder: Some(kept.clone()), ..bios(image) };
    let machine = Machine::start(&config).unwrap();
    machine.wait_console("hello world\n", LIMIT).unwrap();
    let exit = machine.wait_exit(LIMIT).unwrap();
    assert!(exit.orderly(), "{exit}");
    // What it said counts after its end too; what it never said is an error at once.
    assert_eq!(machine.wait_console_any(&["never", "hello"], LIMIT).unwrap(), 1);
    let error = machine.wait_console("never", LIMIT).unwrap_err();
    assert!(matches!(&error, QemuError::Ended { console, .. } if console.contains("hello world")), "{error}");
    assert!(matches!(machine.wait_report(LIMIT), Err(QemuError::Ended { .. })));
    let raw = std::fs::read(kept.join("console.log")).unwrap();
    assert!(raw.windows(10).any(|bytes| bytes == b"\x1b[1mhello\x1b"));
    assert_eq!(*copied.lock().unwrap(), raw);
}

#[test]
fn an_image_is_never_changed_and_a_kept_machine_goes_on() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Says what lies in sector 2 (nothing at first), then writes itself there.
    let read = [
        0x31, 0xc0, 0x8e, 0xc0, 0x8e, 0xd8, 0xbb, 0x00, 0x7e, // es:bx = 0:7e00
        0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, 0xcd, 0x13, // read sector 2
        0xa0, 0xfe, 0x7f, // its byte 510
        0x3c, 0x55, 0x74, // cmp al, 55; je over the next piece
    ];
    let fresh = [say("fresh\r\n"), write_disk(), POWER_OFF.to_vec(), HANG.to_vec()].concat();
    let length = [u8::try_from(fresh.len()).unwrap()];
    let image = disk(dir.path(), "disk", &[&read, &length, &fresh, &say("written\r\n"), POWER_OFF, HANG]);
    let before = sha256(&image);
    let kept = MachineConfig { folder: Some(dir.path().join("kept")), ..bios(image.clone()) };
    for (config, words) in [(&kept, "fresh\n"), (&kept, "written\n"), (&bios(image.clone()), "fresh\n")] {
        let machine = Machine::start(config).unwrap();
        let exit = machine.wait_exit(LIMIT).unwrap();
        assert!(exit.orderly(), "{exit}");
        assert!(machine.console().ends_with(words), "{:?}", machine.console());
    }
    assert_eq!(sha256(&image), before);
}

#[test]
fn a_temporary_machine_leaves_nothing() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("up"), HANG]);
    let config = MachineConfig { tpm: true, ..bios(image) };
    let machine = Machine::start(&config).unwrap();
    machine.wait_console("up", LIMIT).unwrap();
    assert_eq!(machine.status().unwrap(), "running");
    let (pids, folder) = (machine.pids(), machine.folder().to_owned());
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| alive(*pid)) && folder.join("disk0.qcow2").exists());
    drop(machine);
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(!folder.exists());
}

#[test]
fn every_wait_has_an_end() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("last words\r\n"), HANG]);
    let machine = Machine::start(&bios(image.clone())).unwrap();
    machine.wait_console("last words", LIMIT).unwrap();
    let short = Duration::from_millis(200);
    for error in [
        machine.wait_console("never", short).unwrap_err(),
        machine.wait_exit(short).unwrap_err(),
        machine.wait_report(short).unwrap_err(),
    ] {
        assert!(matches!(&error, QemuError::Deadline { console, .. } if console == "last words"), "{error}");
    }
    // It ignores the power button: killed, and said so.
    let pids = machine.pids();
    let error = machine.power_down(Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, QemuError::Deadline { .. }), "{error}");
    assert!(machine.ended().is_some() && !pids.iter().any(|pid| alive(*pid)));

    let config = MachineConfig { lifetime: Some(Duration::from_secs(2)), ..bios(image) };
    let machine = Machine::start(&config).unwrap();
    let exit = machine.wait_exit(LIMIT).unwrap();
    assert!(exit.overran && !exit.orderly() && exit.to_string().contains("lifetime"), "{exit}");
}

#[test]
fn the_power_button_and_the_reset_are_told_apart() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let polite = disk(
        dir.path(),
        "polite",
        &[ENABLE_POWER_BUTTON, &say("waiting"), WAIT_POWER_BUTTON, POWER_OFF, HANG],
    );
    let machine = Machine::start(&bios(polite)).unwrap();
    machine.wait_console("waiting", LIMIT).unwrap();
    let exit = machine.power_down(LIMIT).unwrap();
    assert!(exit.orderly(), "{exit}");

    let restless = disk(dir.path(), "restless", &[&say("again\r\n"), RESET, HANG]);
    let machine = Machine::start(&bios(restless.clone())).unwrap();
    let exit = machine.wait_exit(LIMIT).unwrap();
    assert_eq!(exit.reason.as_deref(), Some("guest-reset"));
    assert!(!exit.orderly());

    let machine = Machine::start(&MachineConfig { no_reboot: false, ..bios(restless) }).unwrap();
    machine.wait_console("again\nagain\nagain\n", LIMIT).unwrap();
    machine.kill();
    let exit = machine.ended().unwrap();
    assert!(exit.resets >= 2 && exit.reason.is_none() && !exit.status.success(), "{exit:?}");
}

#[test]
fn two_machines_run_at_once_and_choose_their_ports() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("up"), HANG]);
    let forwards =
        vec![Forward { host: 0, guest: 80 }, Forward { host: 0, guest: 80 }, Forward { host: 0, guest: 443 }];
    let config = MachineConfig { network: Network::Isolated, forwards, tpm: true, ..bios(image) };
    let machines = [Machine::start(&config).unwrap(), Machine::start(&config).unwrap()];
    let mut ports = Vec::new();
    for machine in &machines {
        machine.wait_console("up", LIMIT).unwrap();
        for forward in machine.forwards() {
            TcpStream::connect(("127.0.0.1", forward.host)).unwrap();
            ports.push(forward.host);
        }
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6, "{ports:?}");

    // A port that is taken is an error that names it, from QEMU's own words.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let forwards = vec![Forward { host: port, guest: 80 }];
    let error = Machine::start(&MachineConfig { forwards, ..config }).unwrap_err();
    assert!(matches!(&error, QemuError::Failed { log, .. } if log.contains(&port.to_string())), "{error}");
}

#[test]
fn a_machine_outlives_the_thread_that_started_it() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image =
        disk(dir.path(), "disk", &[ENABLE_POWER_BUTTON, &say("up"), WAIT_POWER_BUTTON, POWER_OFF, HANG]);
    let config = bios(image);
    let machine = std::thread::spawn(move || Machine::start(&config).unwrap()).join().unwrap();
    machine.wait_console("up", LIMIT).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(machine.power_down(LIMIT).unwrap().orderly());
}

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "started by nothing_outlives_a_killed_parent"]
fn parent() {
    let Some(folder) = std::env::var_os("ASHLAR_QEMU_TEST_PARENT").map(PathBuf::from) else { return };
    let image = disk(&folder, "disk", &[&say("up"), HANG]);
    let machine = Machine::start(&MachineConfig { tpm: true, folder: Some(folder), ..bios(image) }).unwrap();
    machine.wait_console("up", LIMIT).unwrap();
    println!("\npids {:?}", machine.pids());
    std::thread::sleep(LIMIT);
}

#[test]
fn nothing_outlives_a_killed_parent() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent", "--ignored", "--nocapture"])
        .env("ASHLAR_QEMU_TEST_PARENT", dir.path())
        .env("TMPDIR", dir.path()) // a killed process cannot tidy up
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("pids") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut line).unwrap(), 0, "it did not start");
    }
    let pids: Vec<u32> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(pids.len(), 2, "{line}");
    assert!(pids.iter().all(|pid| alive(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(gone_soon(&pids), "{pids:?} outlived their parent");
}

/// The TPM's reset counter, read by a start of our own.
fn reset_count(state: &Path) -> u32 {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("tpm");
    let mut swtpm = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=unixio,path={},disconnect", socket.display()))
        .spawn()
        .unwrap();
    let until = Instant::now() + LIMIT;
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // TPM2_ReadClock; the answer is a header of 10 bytes, time, clock, resetCount, restartCount, safe.
    stream.write_all(&[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x81]).unwrap();
    let mut answer = [0; 35];
    stream.read_exact(&mut answer).unwrap();
    swtpm.kill().unwrap();
    swtpm.wait().unwrap();
    assert_eq!(answer[6..10], [0; 4], "{answer:?}");
    u32::from_be_bytes(answer[26..30].try_into().unwrap())
}

#[test]
fn a_kept_machine_keeps_its_tpm() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[POWER_OFF, HANG]);
    let kept = dir.path().join("kept");
    let config = MachineConfig { tpm: true, folder: Some(kept.clone()), ..bios(image) };
    let run = || assert!(Machine::start(&config).unwrap().wait_exit(LIMIT).unwrap().orderly());
    run();
    let first = reset_count(&kept.join("tpm"));
    run();
    run();
    // Two starts by the machine, one by ourselves.
    assert_eq!(reset_count(&kept.join("tpm")), first + 3);
}

#[test]
fn the_firmware_starts_from_secure_flash_and_tries_one_disk() {
    if !ready() {
        return;
    }
    if Firmware::find().is_err() {
        eprintln!("skipped: OVMF is needed (package ovmf)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[HANG]);
    let machine =
        Machine::start(&MachineConfig { network: Network::Isolated, ..MachineConfig::new(image) }).unwrap();
    // "BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0): Not Found"
    machine.wait_console(": Not Found", Duration::from_secs(120)).unwrap();
    let console = machine.console();
    assert!(console.contains("failed to load Boot0001") && console.contains("/Pci(0x"), "{console}");
    assert!(!console.contains("PXE") && !console.contains("HTTP"), "{console}");
    // The variables were written, and only the copy.
    let template = std::fs::read(Firmware::find().unwrap().variables).unwrap();
    machine.kill();
    assert_ne!(std::fs::read(machine.folder().join("variables.fd")).unwrap(), template);
}

#[test]
fn what_is_missing_is_named() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let absent = bios(dir.path().join("absent.raw"));
    let error = Machine::start(&absent).unwrap_err().to_string();
    assert!(error.contains("absent.raw"), "{error}");
    let image = disk(dir.path(), "disk", &[HANG]);
    let firmware = Firmware { code: "/nonexistent/code".into(), variables: "/nonexistent/variables".into() };
    let config = MachineConfig { boot: Boot::Firmware(firmware), ..bios(image.clone()) };
    let error = Machine::start(&config).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/variables"), "{error}");
    // A machine that runs already.
    let config = MachineConfig { folder: Some(dir.path().join("kept")), ..bios(image) };
    let _machine = Machine::start(&config).unwrap();
    assert!(matches!(Machine::start(&config), Err(QemuError::InUse(_))));
}

/// Code that switches the chipset's watchdog on, by port and memory of ICH9 (its data sheet, 10.1 and 13.9).
const START_WATCHDOG: &[u8] = &[
    0xba, 0xf8, 0x0c, 0x66, 0xb8, 0xf0, 0xf8, 0x00, 0x80, 0x66, 0xef, // configuration of 00:1f.0, RCBA
    0xb2, 0xfc, 0x66, 0xb8, 0x01, 0x00, 0x08, 0x00, 0x66,
    0xef, // at 80000h, where 16-bit code reaches it
    0xb8, 0x00, 0x80, 0x8e, 0xd8, 0x66, 0xc7, 0x06, 0x10, 0x34, 0, 0, 0, 0, // GCS: NO_REBOOT off
    0xba, 0x72, 0x06, 0xb8, 0x04, 0x00, 0xef, // TCO_TMR: 4 ticks of 0.6 s
    0xba, 0x68, 0x06, 0x31, 0xc0, 0xef, // TCO1_CNT: not halted
    0xba, 0x60, 0x06, 0xef, // TCO_RLD
];

#[test]
fn a_watchdog_that_is_not_fed_resets_the_machine() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("up\r\n"), START_WATCHDOG, HANG]);
    let machine = Machine::start(&MachineConfig { watchdog: true, ..bios(image) }).unwrap();
    let exit = machine.wait_exit(LIMIT).unwrap();
    assert_eq!((exit.reason.as_deref(), machine.watchdog_expired()), (Some("guest-reset"), 1));
}

/// Code that gives back each byte that comes from the first serial port, and switches off after a full stop.
const ECHO: &[u8] = &[
    0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, // line status: until a byte is there
    0xba, 0xf8, 0x03, 0xec, 0xee, // read and write it
    0x3c, b'.', 0x75, 0xef, // again unless it is a full stop
];

#[test]
fn what_is_typed_reaches_the_guest() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("type:"), ECHO, POWER_OFF, HANG]);
    let machine = Machine::start(&bios(image)).unwrap();
    machine.wait_console("type:", LIMIT).unwrap();
    let words = "QH5K-7YB2 ".repeat(100);
    machine.type_text(&words).unwrap();
    machine.wait_console(&format!("type:{words}"), LIMIT).unwrap();
    machine.type_text(".").unwrap();
    assert!(machine.wait_exit(LIMIT).unwrap().orderly());
    assert!(matches!(machine.type_text("too late"), Err(QemuError::Typing(_))));
}

#[test]
fn parts_of_a_machine_that_is_off_can_be_changed() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let first = disk(dir.path(), "first", &[&say("first\r\n"), write_disk().as_slice(), POWER_OFF, HANG]);
    let second = disk(dir.path(), "second", &[&say("second\r\n"), POWER_OFF, HANG]);
    let data = dir.path().join("data");
    std::fs::File::create(&data).unwrap().set_len(1 << 30).unwrap();
    let kept = dir.path().join("kept");
    let mut config = MachineConfig {
        disks: vec![first.clone(), data.clone()],
        disk_format: DiskFormat::Copy,
        folder: Some(kept.clone()),
        ..bios(first.clone())
    };
    assert!(matches!(Stopped::open(&kept), Err(QemuError::NoMachine(_))));
    let run = |config: &MachineConfig, words: &str| {
        let machine = Machine::start(config).unwrap();
        assert!(matches!(Stopped::open(config.folder.as_ref().unwrap()), Err(QemuError::InUse(_))));
        assert!(machine.wait_exit(LIMIT).unwrap().orderly());
        assert!(machine.console().ends_with(words), "{}", machine.console());
    };
    run(&config, "first\n");
    let mut stopped = Stopped::open(&kept).unwrap();
    // What the guest wrote is in the copy as it is.
    let bytes = std::fs::read(stopped.disk(0).unwrap()).unwrap();
    assert_eq!(bytes[512..1024], bytes[..512]);
    let hole = std::fs::metadata(stopped.disk(1).unwrap()).unwrap();
    assert_eq!(hole.len(), 1 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&hole) < 100, "the copy of an empty disk is not empty");
    assert!(matches!(stopped.disk(2), Err(QemuError::NoPart { .. })));
    // What we write is what the guest starts from.
    std::fs::copy(&second, stopped.disk(0).unwrap()).unwrap();
    drop(stopped);
    run(&config, "second\n");
    // Another disk: the image that was given before is no longer this machine's.
    stopped = Stopped::open(&kept).unwrap();
    stopped.replace_disk(0, &first).unwrap();
    stopped.replace_disk(0, &second).unwrap();
    drop(stopped);
    assert!(matches!(Machine::start(&config), Err(QemuError::OtherImage { .. })));
    config.disks = vec![second.clone(), data];
    run(&config, "second\n");

    // The same with overlays, and other variables.
    let kept = dir.path().join("overlays");
    let mut config = MachineConfig { folder: Some(kept.clone()), ..bios(first) };
    run(&config, "first\n");
    stopped = Stopped::open(&kept).unwrap();
    stopped.replace_disk(0, &second).unwrap();
    stopped.set_variables(b"others").unwrap();
    assert_eq!(stopped.variables().unwrap(), b"others");
    drop(stopped);
    config.disks = vec![second];
    run(&config, "second\n");
}

/// Runs one of tpm2-tools on a machine's TPM; none when they are not installed.
fn tpm2(tpm: &OfflineTpm, arguments: &[&str]) -> Option<String> {
    let (program, arguments) = arguments.split_first().unwrap();
    let Ok(output) = Command::new(program).args(arguments).args(["-T", &tpm.tcti()]).output() else {
        assert!(
            std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(),
            "{program} is needed (package tpm2-tools)"
        );
        eprintln!("skipped in part: {program} is needed (package tpm2-tools)");
        return None;
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_tpm_of_a_machine_that_is_off_can_be_asked_cleared_and_exchanged() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[POWER_OFF, HANG]);
    let folders = ["one", "other"].map(|name| dir.path().join(name));
    for folder in &folders {
        let config = MachineConfig { tpm: true, folder: Some(folder.clone()), ..bios(image.clone()) };
        assert!(Machine::start(&config).unwrap().wait_exit(LIMIT).unwrap().orderly());
    }
    let [one, other] = [Stopped::open(&folders[0]).unwrap(), Stopped::open(&folders[1]).unwrap()];
    let lockout = |machine: &Stopped| machine.tpm().unwrap().lockout_counter().unwrap();
    assert_eq!(lockout(&one), 0);

    // A wrong password for what the dictionary-attack logic protects counts: NV index 0x1500016, password "a".
    let tpm = one.tpm().unwrap();
    let define = ["tpm2_nvdefine", "-Q", "-C", "o", "-s", "8", "-p", "a", "-a"];
    let Some(_) = tpm2(&tpm, &[&define[..], &["authread|authwrite", "0x1500016"]].concat()) else { return };
    let wrong = ["-T", &tpm.tcti(), "-C", "0x1500016", "-P", "b", "0x1500016"];
    let wrong = Command::new("tpm2_nvread").args(wrong).output().unwrap();
    assert!(!wrong.status.success());
    assert_eq!(tpm.lockout_counter().unwrap(), 1);
    let text = tpm2(&tpm, &["tpm2_getcap", "properties-variable"]).unwrap();
    assert!(text.contains("TPM2_PT_LOCKOUT_COUNTER: 0x1\n"), "{text}");
    drop(tpm);
    assert_eq!((lockout(&one), lockout(&other)), (1, 0));

    one.exchange_tpm(&other).unwrap();
    assert_eq!((lockout(&one), lockout(&other)), (0, 1));
    let indexes =
        |machine: &Stopped| tpm2(&machine.tpm().unwrap(), &["tpm2_getcap", "handles-nv-index"]).unwrap();
    assert!(!indexes(&one).contains("1500016") && indexes(&other).contains("1500016"));
    other.tpm().unwrap().clear().unwrap();
    assert!(!indexes(&other).contains("1500016"));
    assert_eq!(lockout(&other), 0);
    one.remove_tpm().unwrap();
    assert!(!one.folder().join("tpm").exists());
    assert_eq!(lockout(&one), 0);
}

#[test]
fn a_power_cut_takes_the_tpm_too() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), "disk", &[&say("up"), HANG]);
    let kept = dir.path().join("kept");
    let config = MachineConfig { tpm: true, folder: Some(kept.clone()), ..bios(image) };
    for _ in 0..3 {
        let machine = Machine::start(&config).unwrap();
        machine.wait_console("up", LIMIT).unwrap();
        let pids = machine.pids();
        machine.cut_power();
        assert!(gone_soon(&pids));
        drop(machine);
    }
    assert_eq!(Stopped::open(&kept).unwrap().tpm().unwrap().lockout_counter().unwrap(), 0);
}
