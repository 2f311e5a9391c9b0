//! The UKI writer, judged by goblin, objdump and sbsign, on a stub made here and on Debian's where it is.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_boot::uki::{self, Section, UkiError};
use ashlar_measured_boot::authenticode;
use ashlar_measured_boot::pe::Pe;
use common::{program, put, run};
use goblin::pe::PE;

fn sections<'a>(kernel: &'a [u8], initrd: &'a [u8]) -> Vec<Section<'a>> {
    vec![
        Section { name: ".osrel", data: b"ID=ashlar\n" },
        Section { name: ".initrd", data: initrd },
        Section { name: ".cmdline", data: b"console=ttyS0 roothash=00" },
        Section { name: ".linux", data: kernel },
    ]
}

#[test]
fn goblin_reads_every_section_where_the_stub_will_look() {
    let (stub, initrd) = (program(5, 512), vec![0xab; 10_000]);
    let kernel = program(2, 512);
    let bytes = uki::build(&stub, &sections(&kernel, &initrd)).unwrap();
    let pe = PE::parse(&bytes).unwrap();
    let names: Vec<&str> = pe.sections.iter().map(|section| section.name().unwrap()).collect();
    assert_eq!(names[5..], [".linux", ".osrel", ".cmdline", ".initrd"]);
    for section in sections(&kernel, &initrd) {
        let header = pe.sections.iter().find(|header| header.name().unwrap() == section.name).unwrap();
        assert_eq!(header.virtual_size as usize, section.data.len());
        assert_eq!(header.virtual_address % 4096, 0);
        assert_eq!(header.pointer_to_raw_data % 512, 0);
        assert_eq!(header.characteristics, 0x4000_0040);
        let start = header.pointer_to_raw_data as usize;
        let (content, padding) =
            bytes[start..start + header.size_of_raw_data as usize].split_at(section.data.len());
        assert_eq!(content, section.data);
        assert!(padding.iter().all(|&byte| byte == 0));
    }
    let optional = pe.header.optional_header.unwrap();
    let last = pe.sections.last().unwrap();
    let image_end = (last.virtual_address + last.virtual_size).next_multiple_of(4096);
    assert_eq!(optional.windows_fields.size_of_image, image_end);
    assert_eq!(optional.windows_fields.check_sum, Pe::parse(&bytes).unwrap().checksum());
    let added: u64 = pe.sections[5..].iter().map(|section| u64::from(section.size_of_raw_data)).sum();
    assert_eq!(optional.standard_fields.size_of_initialized_data, 0x200 + added);
    // What the stub had of its own is untouched.
    assert_eq!(bytes[0x600..0x600 + 5 * 512], stub[0x600..0x600 + 5 * 512]);
}

#[test]
fn the_order_that_sections_are_given_in_does_not_matter() {
    let (stub, kernel) = (program(3, 512), program(2, 512));
    let mut given = sections(&kernel, b"initrd");
    let bytes = uki::build(&stub, &given).unwrap();
    given.reverse();
    assert!(bytes == uki::build(&stub, &given).unwrap());
}

#[test]
fn a_uki_that_the_stub_would_misread_is_refused() {
    let (stub, kernel) = (program(3, 512), program(2, 512));
    let good = sections(&kernel, b"initrd");
    let with = |section| [good.as_slice(), &[section]].concat();
    let build = |given: &[Section<'_>]| uki::build(&stub, given).unwrap_err();

    let trap = with(Section { name: ".linux2", data: b"x" });
    assert_eq!(build(&trap), UkiError::Unknown(".linux2".into()));
    let twice = with(Section { name: ".cmdline", data: b"init=/bin/sh" });
    assert_eq!(build(&twice), UkiError::Duplicate(".cmdline".into()));
    assert_eq!(build(&good[..2]), UkiError::Empty(".linux".into()));
    let without_cmdline: Vec<_> = good.iter().copied().filter(|s| s.name != ".cmdline").collect();
    assert_eq!(build(&without_cmdline), UkiError::Empty(".cmdline".into()));
    let empty = [without_cmdline.as_slice(), &[Section { name: ".cmdline", data: b"" }]].concat();
    assert_eq!(build(&empty), UkiError::Empty(".cmdline".into()));
    let long = vec![b'a'; uki::CMDLINE_MAX + 1];
    let long = [without_cmdline.as_slice(), &[Section { name: ".cmdline", data: &long }]].concat();
    assert!(matches!(build(&long), UkiError::Cmdline(_)));
    let nul = [without_cmdline.as_slice(), &[Section { name: ".cmdline", data: b"quiet\0x" }]].concat();
    assert!(matches!(build(&nul), UkiError::Cmdline(_)));
    let text = sections(b"#!/bin/sh", b"initrd");
    assert!(matches!(build(&text), UkiError::Kernel(_)));

    // A UKI is no stub.
    let made = uki::build(&stub, &good).unwrap();
    assert!(matches!(uki::build(&made, &good), Err(UkiError::Duplicate(_))));
}

#[test]
fn a_stub_without_room_is_refused_with_the_numbers() {
    let kernel = program(2, 512);
    // Headers of 0x600 bytes from 0x148: 30 entries in all.
    let error = uki::build(&program(28, 512), &sections(&kernel, b"initrd")).unwrap_err();
    assert_eq!(error, UkiError::NoRoom { room: 2, needed: 4 });
    uki::build(&program(26, 512), &sections(&kernel, b"initrd")).unwrap();
}

#[test]
fn what_follows_the_stubs_sections_is_dropped() {
    let kernel = program(2, 512);
    let plain = program(3, 512);
    let expected = uki::build(&plain, &sections(&kernel, b"initrd")).unwrap();
    let mut symbols = plain.clone();
    let end = symbols.len() as u32;
    put(&mut symbols, 0x4c, &end.to_le_bytes());
    put(&mut symbols, 0x50, &1u32.to_le_bytes());
    symbols.extend_from_slice(&[7; 22]);
    assert!(uki::build(&symbols, &sections(&kernel, b"initrd")).unwrap() == expected);
    let mut signed = plain;
    put(&mut signed, 0x58 + 112 + 32, &end.to_le_bytes());
    put(&mut signed, 0x58 + 112 + 36, &16u32.to_le_bytes());
    signed.extend_from_slice(&[9; 16]);
    assert!(!Pe::parse(&signed).unwrap().certificates.is_empty());
    assert!(uki::build(&signed, &sections(&kernel, b"initrd")).unwrap() == expected);
}

#[test]
fn a_stub_that_is_no_efi_application_or_unaligned_is_refused() {
    let kernel = program(2, 512);
    let build = |stub: &[u8]| uki::build(stub, &sections(&kernel, b"initrd"));
    let mut driver = program(3, 512);
    put(&mut driver, 0x58 + 68, &11u16.to_le_bytes());
    assert!(matches!(build(&driver), Err(UkiError::UnfitStub(_))));
    let mut unaligned = program(3, 512);
    put(&mut unaligned, 0x58 + 240 + 12, &0x1010u32.to_le_bytes());
    assert!(matches!(build(&unaligned), Err(UkiError::UnfitStub(_))));
    let mut full = program(3, 512);
    put(&mut full, 0x58 + 240 + 3 * 40, b"data");
    assert!(matches!(build(&full), Err(UkiError::UnfitStub(_))));
}

/// Whatever a byte of the headers is changed to: an error, or a file that reads back whole.
#[test]
fn a_damaged_stub_never_panics() {
    let good = program(3, 512);
    let kernel = program(2, 512);
    let given = sections(&kernel, b"initrd");
    let check = |stub: &[u8]| {
        if let Ok(bytes) = uki::build(stub, &given) {
            let pe = Pe::parse(&bytes).unwrap();
            assert_eq!(pe.content(pe.section(".linux").unwrap()).unwrap(), kernel);
        }
    };
    for length in 0..good.len() {
        check(&good[..length]);
    }
    for at in 0..0x300 {
        for value in [0, 1, 2, 0x10, 0x7f, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] = value;
            check(&changed);
        }
    }
}

#[test]
fn sbsign_signs_it_and_sbverify_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let bytes = uki::build(&program(5, 512), &sections(&program(2, 512), &[1; 5001])).unwrap();
    std::fs::write(path("uki"), &bytes).unwrap();
    let made = run(
        "openssl",
        &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"],
        &["-keyout", &path("key"), "-out", &path("cert")],
    );
    let Some(made) = made else { return };
    assert!(made.status.success(), "{made:?}");
    let Some(signed) = run(
        "sbsign",
        &["--key", &path("key"), "--cert", &path("cert")],
        &["--output", &path("signed"), &path("uki")],
    ) else {
        return;
    };
    assert!(signed.status.success(), "{signed:?}");
    // sbsign warns of gaps between sections and of data behind them; ours has none.
    assert!(!String::from_utf8_lossy(&signed.stderr).contains("warning"), "{signed:?}");
    let verified = run("sbverify", &["--cert", &path("cert")], &[&path("signed")]).unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let signed = std::fs::read(path("signed")).unwrap();
    assert_eq!(authenticode::digest(&signed).unwrap(), authenticode::digest(&bytes).unwrap());
}

#[test]
fn objdump_lists_the_sections() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uki");
    let bytes = uki::build(&program(5, 512), &sections(&program(2, 512), &[1; 0x1389])).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let Some(output) = run("objdump", &["-h"], &[&path.display().to_string()]) else { return };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(".initrd")).unwrap();
    assert!(line.contains("00001389"), "{text}");
}

/// On unpacked packages linux-image-* and systemd-boot-efi; `ASHLAR_TEST_KERNEL` names the folder that they
/// are unpacked in.
#[test]
fn debians_stub_takes_every_section_and_debians_kernel() {
    let Some(folder) = std::env::var_os("ASHLAR_TEST_KERNEL") else {
        eprintln!("skipped: ASHLAR_TEST_KERNEL names no folder with unpacked packages");
        return;
    };
    let folder = std::path::Path::new(&folder);
    let stub = std::fs::read(folder.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub")).unwrap();
    let kernel = std::fs::read_dir(folder.join("boot"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("vmlinuz-"))
        .unwrap();
    let kernel = std::fs::read(kernel).unwrap();
    let all: Vec<Section<'_>> = uki::CANONICAL_ORDER
        .iter()
        .map(|&name| Section { name, data: if name == ".linux" { &kernel } else { name.as_bytes() } })
        .collect();
    let bytes = uki::build(&stub, &all).unwrap();
    let pe = Pe::parse(&bytes).unwrap();
    assert_eq!(pe.content(pe.section(".linux").unwrap()).unwrap(), kernel);
    for name in &uki::CANONICAL_ORDER[1..] {
        assert_eq!(pe.content(pe.section(name).unwrap()).unwrap(), name.as_bytes());
    }
    let own = Pe::parse(&stub).unwrap();
    for section in &own.sections {
        assert_eq!(pe.section(&section.name), Some(section));
        assert_eq!(bytes[section.raw.clone()], stub[section.raw.clone()]);
    }
}
