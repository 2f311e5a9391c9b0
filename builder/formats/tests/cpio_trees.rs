//! Random trees as archives: GNU cpio unpacks what was packed.
#![allow(clippy::unwrap_used)] // a test fails by it

mod support;

use ashlar_formats::cpio;
use ashlar_tree::Tree;
use proptest::test_runner::TestRunner;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use support::run;
use support::trees::{Compared, Holds, build, compare, config, specs};

/// The format knows no time before 1970 and none beyond 2106.
fn possible(tree: &mut Tree) {
    tree.walk_mut(|node| node.metadata.mtime = node.metadata.mtime.clamp(0, i64::from(u32::MAX)));
}

#[test]
fn gnu_cpio_unpacks_random_trees() {
    let strategy = specs(Holds { xattrs: false, sockets: false });
    let result = TestRunner::new(config(16)).run(&strategy, |specs| {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = build(&specs, dir.path());
        possible(&mut tree);
        let archive = dir.path().join("archive");
        let mut file = File::create(&archive).unwrap();
        cpio::write(&tree, &mut file).unwrap();
        file.flush().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let root = rustix::process::geteuid().is_root();
        let mut command = Command::new("cpio");
        command.args(["--extract", "--make-directories", "--preserve-modification-time", "--quiet"]);
        // An ordinary user may not make devices.
        let Some(output) = run(command.arg("--file").arg(&archive).current_dir(&out), "cpio") else {
            return Ok(());
        };
        if root {
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
        // An ordinary user's files get his umask and lose set-ID bits that he may not give.
        let mode = if root { 0o7777 } else { 0o700 };
        let compared =
            Compared { mode, owner: root, time: true, other_times: false, xattrs: false, devices: root };
        compare(&tree, &out, compared, "cpio");
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
