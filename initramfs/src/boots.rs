//! How the boot before ended: a file on the state volume that says `running` until the machine ends in order.

use crate::durable;
use crate::pstore::{self, CrashRecord};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The file, in the folder that [`begin`] is given.
pub const FILE: &str = "boot.json";
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// Longest reason that is kept, in characters.
const MAX_REASON: usize = 200;

/// One boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's boot id.
    pub boot: String,
    /// `IMAGE_VERSION` of the release.
    pub release: String,
    /// Clock at its start, seconds since 1970.
    pub started: i64,
    /// Why it ended in order; none while it runs, or when it did not.
    pub ended: Option<String>,
}

/// What was found on the state volume of the boot before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// There was none.
    Nothing,
    /// A file that cannot be understood.
    Damaged,
    /// The boot.
    Boot(Boot),
}

/// How the boot before ended, for people. `reset` tells whether the watchdog says that it started the machine.
pub fn ending(before: &Before, records: &[CrashRecord], reset: bool) -> Option<String> {
    // A record is proof, whatever the file says: a kernel may die after the machine has ended in order.
    if let Some(cause) = pstore::cause(records) {
        return Some(format!("panic: {cause}"));
    }
    match before {
        Before::Nothing => None,
        Before::Damaged => Some("unknown: the file about it is damaged".into()),
        Before::Boot(Boot { ended: Some(reason), .. }) => Some(format!("in order: {reason}")),
        Before::Boot(_) if reset => Some("hang: the watchdog started the machine again".into()),
        Before::Boot(_) => Some("power cut or hang".into()),
    }
}

/// The release of the boot before, if it came far enough to note it.
pub fn release(before: &Before) -> Option<&str> {
    match before {
        Before::Boot(boot) if !boot.release.is_empty() => Some(&boot.release),
        _ => None,
    }
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

fn read(path: &Path) -> Before {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Before::Nothing,
        Err(_) => return Before::Damaged,
    }
    match serde_json::from_slice::<Boot>(&bytes) {
        Ok(boot) => Before::Boot(Boot {
            ended: boot.ended.as_deref().map(bounded),
            release: bounded(&boot.release),
            ..boot
        }),
        Err(_) => Before::Damaged,
    }
}

fn write(path: &Path, boot: &Boot) -> io::Result<()> {
    durable::replace(path, &serde_json::to_vec(boot)?, 0o600)
}

/// Reads how the boot before ended and notes in `folder` that this one runs.
pub fn begin(folder: &Path, boot: &str, release: &str, started: i64) -> (Before, io::Result<()>) {
    let path = folder.join(FILE);
    let before = read(&path);
    let this = Boot { boot: bounded(boot), release: bounded(release), started, ended: None };
    (before, write(&path, &this))
}

/// Notes in `folder` that the boot that runs ends in order, and why: `restarting`, `powering off: the power button`.
/// When this is back, it is on the disk.
pub fn end(folder: &Path, reason: &str) -> io::Result<()> {
    let path = folder.join(FILE);
    match read(&path) {
        Before::Boot(boot) => write(&path, &Boot { ended: Some(bounded(reason)), ..boot }),
        Before::Nothing | Before::Damaged => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_in_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let boot = |id: &str| {
            let (before, written) = begin(folder.path(), id, "1", 7);
            written.unwrap();
            before
        };
        let last = |before: &Before| ending(before, &[], false);
        assert!(end(folder.path(), "too early").is_err());
        assert_eq!(last(&boot("a")), None, "the first boot");
        end(folder.path(), "restarting: Ctrl-Alt-Del\u{7}").unwrap();
        let before = boot("b");
        assert_eq!(last(&before).unwrap(), "in order: restarting: Ctrl-Alt-Del");
        assert_eq!((release(&before), release(&Before::Nothing)), (Some("1"), None));
        let expected = Boot {
            boot: "a".into(),
            release: "1".into(),
            started: 7,
            ended: Some("restarting: Ctrl-Alt-Del".into()),
        };
        assert_eq!(before, Before::Boot(expected));
        let before = boot("c");
        assert_eq!(last(&before).unwrap(), "power cut or hang");
        assert_eq!(ending(&before, &[], true).unwrap(), "hang: the watchdog started the machine again");
        let panic =
            CrashRecord { kind: "Panic".into(), time: 0, text: "Kernel panic - not syncing: x\n".into() };
        assert_eq!(ending(&before, &[panic], true).unwrap(), "panic: Kernel panic - not syncing: x");
    }

    #[test]
    fn a_damaged_file_is_told_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for content in [b"".as_slice(), b"{}", b"\xff", b"[1]"] {
            std::fs::write(folder.path().join(FILE), content).unwrap();
            let (before, written) = begin(folder.path(), "a", "1", 0);
            written.unwrap();
            assert_eq!(before, Before::Damaged);
            assert!(ending(&before, &[], false).unwrap().starts_with("unknown"));
            assert!(matches!(read(&folder.path().join(FILE)), Before::Boot(_)));
        }
    }
}
