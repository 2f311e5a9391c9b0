//! The EFI system partition with UKIs whose sizes lie around those of clusters, and partitions around those where the
//! cluster size changes: fsck.fat has nothing to say, and mtools and our reader find the UKI.
#![allow(clippy::unwrap_used)] // a test fails by it

mod support;

use ashlar_formats::esp::{self, EspError, EspOptions};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::fs::File;
use std::process::Command;
use support::trees::config;
use support::{noise, run};

#[test]
fn fsck_and_mtools_accept_every_size() {
    // Number of clusters, size of one, bytes more or less.
    let uki = (0..2_000_u32, 0..4_u32, 0..5_u32).prop_map(|(clusters, power, more)| {
        // Up to two bytes more or less than whole clusters.
        (clusters * (512 << power) + more).saturating_sub(2) as usize
    });
    // Between 33 MiB and 300 MiB; where it must be, a few sectors more than whole MiB.
    let size = (33..300_u64, 0..3_u64).prop_map(|(mib, sectors)| (mib << 20) + sectors * 512);
    let result = TestRunner::new(config(40)).run(&(uki, size, any::<u32>()), |(length, size, serial)| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("esp");
        let uki = noise(length, u64::from(serial));
        let options = EspOptions { size, serial, label: "ASHLAR".into(), time: 1_700_000_000 };
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        match esp::write(&uki, &options, &file) {
            Ok(stored) => assert_eq!(file.metadata().unwrap().len(), stored),
            Err(EspError::TooSmall { needed, .. }) => {
                assert!(size < needed && needed == esp::required(length as u64), "{length} {size} {needed}");
                return Ok(());
            }
            Err(other) => panic!("{length} {size}: {other}"),
        }
        file.set_len(size).unwrap();
        let say = format!("{length} bytes in {size}");
        assert!(esp::read_uki(&mut &file).unwrap() == uki, "{say}: our reader");
        let Some(output) = run(Command::new("fsck.fat").arg("-n").arg(&path), "dosfstools") else {
            return Ok(());
        };
        assert!(output.status.success(), "{say}: {output:?}");
        let copy = dir.path().join("uki");
        let mut mcopy = Command::new("mcopy");
        let Some(output) = run(mcopy.arg("-i").arg(&path).arg("::EFI/BOOT/BOOTX64.EFI").arg(&copy), "mtools")
        else {
            return Ok(());
        };
        assert!(output.status.success(), "{say}: {output:?}");
        assert!(std::fs::read(&copy).unwrap() == uki, "{say}: mtools");
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
