//! Inspections for people.

use super::{Inspection, Program, short};
use crate::recipe::human;
use ashlar_image::release::Release;
use std::fmt::{self, Formatter};

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release(release) => write_release(f, release),
            Self::Program(program) => write_program(f, program),
            Self::Disk(disk) => {
                writeln!(f, "disk image of {}", human(disk.size))?;
                for p in &disk.partitions {
                    writeln!(
                        f,
                        "  {} {:<10} {:>11} at {:>11}  {}",
                        p.number,
                        p.label,
                        human(p.size),
                        human(p.offset),
                        p.guid
                    )?;
                }
                Ok(())
            }
            Self::Esp(esp) => {
                writeln!(f, "EFI system partition")?;
                writeln!(f, "  EFI/BOOT/BOOTX64.EFI  {}  sha256 {}", human(esp.uki_size), esp.uki_sha256)
            }
            Self::Erofs(e) => {
                writeln!(f, "erofs image of {}, {} inodes", human(e.size), e.inodes)?;
                writeln!(f, "  volume {}  uuid {}  built at {}", e.volume_name, e.uuid, e.build_time)
            }
            Self::Verity(v) => {
                writeln!(f, "dm-verity tree over {} blocks of {} bytes", v.data_blocks, v.block_size)?;
                writeln!(f, "  algorithm {}  salt {}  uuid {}", v.algorithm, v.salt, v.uuid)
            }
        }
    }
}

fn write_release(f: &mut Formatter<'_>, release: &Release) -> fmt::Result {
    writeln!(f, "release {} {}", release.image_id, release.image_version)?;
    writeln!(f, "  security version  {}", release.security_version)?;
    writeln!(f, "  kernel            {}", release.kernel)?;
    writeln!(f, "  stub              {}", release.uki.stub_version)?;
    writeln!(f, "  root hash         {}", release.root_hash)?;
    writeln!(f, "  command line      {}", release.uki.cmdline)?;
    writeln!(f, "  packages          {}", release.packages.len())?;
    let sizes = &release.partition_sizes;
    for (name, artifact, room) in [
        ("esp", &release.slot.esp, sizes.esp),
        ("root", &release.slot.root, sizes.root),
        ("verity", &release.slot.verity, sizes.verity),
    ] {
        writeln!(
            f,
            "  {name:<6} {:>10} of {:>10}  sha256 {}",
            human(artifact.size),
            human(room),
            artifact.sha256
        )?;
    }
    for (pcr, variants) in &release.pcrs {
        for variant in variants {
            writeln!(f, "  PCR {pcr:>2}  {}  {}", variant.value, variant.name)?;
        }
    }
    Ok(())
}

fn write_program(f: &mut Formatter<'_>, program: &Program) -> fmt::Result {
    let what = if program.stub_version.is_some() { "unified kernel image" } else { "EFI program" };
    let signed = if program.signed { "signed" } else { "not signed" };
    writeln!(f, "{what} of {}, {signed}", human(program.size))?;
    writeln!(f, "  sha256        {}", program.sha256)?;
    writeln!(f, "  authenticode  {}", program.authenticode)?;
    if let Some(version) = &program.stub_version {
        writeln!(f, "  stub          {version}")?;
    }
    for section in &program.sections {
        writeln!(f, "  {:<9} {:>10}  {}…", section.name, human(section.size), short(&section.sha256))?;
    }
    for section in &program.sections {
        if let Some(text) = &section.text {
            writeln!(f, "{}:", section.name)?;
            for line in text.lines() {
                writeln!(f, "  {line}")?;
            }
        }
    }
    for variant in &program.pcr11 {
        writeln!(f, "  PCR 11  {}  {}", variant.value, variant.name)?;
    }
    Ok(())
}
