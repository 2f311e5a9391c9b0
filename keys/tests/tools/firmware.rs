//! The firmware itself as judge: OVMF with System Management Mode, in QEMU without hardware acceleration.

use crate::program::{Program, hello};
use crate::run::{Process, file, stdout, tool};
use crate::{TIME, key_file, keys};
use ashlar_keys::ovmf::{enroll, variables};
use ashlar_keys::{auth, authenticode};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A machine and its files.
struct Machine {
    dir: TempDir,
    disks: Vec<PathBuf>,
}

impl Machine {
    /// A machine with this variable store.
    fn new(vars: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vars.fd"), vars).unwrap();
        Self { dir, disks: Vec::new() }
    }

    fn vars(&self) -> PathBuf {
        self.dir.path().join("vars.fd")
    }

    /// Adds a disk whose boot loader is `program`. Disks are tried in the order in which they were added.
    fn disk(&mut self, program: &[u8]) {
        let disk = self.dir.path().join(format!("disk{}", self.disks.len()));
        let loader = self.dir.path().join("loader");
        fs::write(&loader, program).unwrap();
        File::create(&disk).unwrap().set_len(2880 << 10).unwrap();
        let mtool = |name: &str| {
            let mut tool = tool(name, "mtools").unwrap();
            tool.arg("-i").arg(&disk);
            tool
        };
        stdout(mtool("mformat").args(["-f", "2880", "::"]));
        stdout(mtool("mmd").args(["::/EFI", "::/EFI/BOOT"]));
        stdout(mtool("mcopy").arg(&loader).arg("::/EFI/BOOT/BOOTX64.EFI"));
        self.disks.push(disk);
    }

    /// Runs the machine until it switches itself off, and gives what it wrote to its console.
    fn run(&self, code: &Path) -> String {
        let serial = self.dir.path().join("serial");
        let log = self.dir.path().join("log");
        let mut qemu = tool("qemu-system-x86_64", "qemu-system-x86").unwrap();
        qemu.args("-machine q35,smm=on -accel tcg,thread=multi -cpu max -m 512 -display none".split(' '))
            .args("-nodefaults -no-user-config -no-reboot -net none".split(' '))
            .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .arg("-drive")
            .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display()))
            .arg("-drive")
            .arg(format!("if=pflash,format=raw,unit=1,file={}", self.vars().display()));
        for (index, disk) in self.disks.iter().enumerate() {
            qemu.arg("-drive")
                .arg(format!("if=none,id=disk{index},format=raw,readonly=on,file={}", disk.display()))
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive=disk{index},bootindex={}", index + 1));
        }
        qemu.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut process = Process::start(&mut qemu);
        let ended = process.ends_within(Duration::from_secs(120));
        let console = String::from_utf8_lossy(&fs::read(&serial).unwrap_or_default()).into_owned();
        let log = fs::read_to_string(&log).unwrap();
        assert!(ended, "the machine did not switch itself off\n{log}\n{console}");
        console
    }
}

/// What the tests need besides QEMU's own files.
fn firmware() -> Option<(&'static Path, Vec<u8>)> {
    tool("qemu-system-x86_64", "qemu-system-x86")?;
    tool("mformat", "mtools")?;
    let code = file(CODE, "ovmf")?;
    let vars = file(VARS, "ovmf")?;
    Some((code, fs::read(vars).unwrap()))
}

/// One start of a machine whose store was written by us, with four disks: the firmware refuses what is not
/// signed, what another key signed and what was changed, and runs what the db key signed.
#[test]
fn only_what_the_db_key_signed_runs() {
    let Some((code, template)) = firmware() else { return };
    let wanted = keys().secure_boot();
    let mut machine = Machine::new(&enroll(&template, &wanted, TIME, &[]).unwrap());
    let bad = |text: &str| Program::new().print(text).build();
    machine.disk(&bad("the unsigned program ran\r\n"));
    let foreign = bad("the program of another key ran\r\n");
    machine.disk(&authenticode::sign(&foreign, keys().kek(), None).unwrap());
    let mut changed = authenticode::sign(&bad("the changed program ran\r\n"), keys().db(), None).unwrap();
    let at = changed.windows(6).position(|w| w == b"c\0h\0a\0").unwrap();
    changed[at] = b'C';
    machine.disk(&changed);
    machine.disk(&authenticode::sign(&hello(), keys().db(), None).unwrap());
    let console = machine.run(code);
    assert!(console.contains("hello from a signed program"), "{console}");
    let refused = console.matches("Access Denied").count() + console.matches("Security Violation").count();
    assert_eq!(refused, 3, "{console}");
    assert!(!console.contains("program ran"), "{console}");

    // The firmware kept the owner's variables as they were written.
    let after = variables(&fs::read(machine.vars()).unwrap()).unwrap();
    let data = |name: &str| after.iter().find(|v| v.name == name).map(|v| v.data.clone());
    assert_eq!(data("PK"), Some(wanted.pk));
    assert_eq!(data("KEK"), Some(wanted.kek));
    assert_eq!(data("db"), Some(wanted.db));
    assert_eq!(data("dbx"), None);
    assert_eq!(data("SecureBootEnable"), Some(vec![1]));
}

/// A machine in setup mode takes the `.auth` files of the key folder, each signature checked by the one
/// before, refuses changed ones, and afterwards has the very variables that `enroll` writes.
#[test]
fn the_firmware_takes_the_auth_files_in_setup_mode() {
    let Some((code, template)) = firmware() else { return };
    let mut program = Program::new();
    let file = |name: &str| fs::read(key_file(&format!("{name}.auth"))).unwrap();
    let set = |program: Program, name: &str, content: &[u8]| {
        program.set_variable(name, auth::vendor(name).unwrap(), auth::SECURE_BOOT_ATTRIBUTES, content)
    };
    // A changed payload: its last byte belongs to the certificate's signature, so it stays a certificate.
    let changed = |name: &str| {
        let mut content = file(name);
        *content.last_mut().unwrap() ^= 1;
        content
    };
    let list = keys().secure_boot().kek;
    let by_the_wrong_key = auth::variable("KEK", &list, TIME, keys().db()).unwrap();
    program = set(program.print("in setup mode\r\n"), "PK", &changed("PK"));
    for name in ["PK", "KEK", "db"] {
        program = match name {
            "KEK" => set(set(program, name, &changed(name)), name, &by_the_wrong_key),
            "db" => set(program, name, &changed(name)),
            _ => program,
        };
        program = set(program, name, &file(name));
    }
    // The same time again: a replayed write.
    program = set(program, "db", &file("db"));
    let mut machine = Machine::new(&template);
    machine.disk(&program.build());
    let console = machine.run(code);
    let said: Vec<&str> = console
        .lines()
        .map(str::trim)
        .filter(|line| line.ends_with(" written") || line.ends_with(" refused"))
        .collect();
    let wanted = [
        "PK refused",
        "PK written",
        "KEK refused",
        "KEK refused",
        "KEK written",
        "db refused",
        "db written",
        "db refused",
    ];
    assert_eq!(said, wanted, "{console}");

    let enrolled = variables(&enroll(&template, &keys().secure_boot(), TIME, &[]).unwrap()).unwrap();
    let after = variables(&fs::read(machine.vars()).unwrap()).unwrap();
    for name in ["PK", "KEK", "db"] {
        let of = |all: &[_]| all.iter().find(|v: &&ashlar_keys::ovmf::Variable| v.name == name).cloned();
        assert_eq!(of(&after), of(&enrolled), "{name}");
        assert!(of(&after).is_some());
    }
}
