//! The floor of the clock: no time before the image's build is right, nor one before the time that the machine saved
//! last on its state volume.

use crate::console;
use rustix::time::{ClockId, Timespec};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Where the time is saved: seconds since 1970 as a decimal number.
pub const FILE: &str = "/var/lib/ashlar/clock";
/// A saved time so long after the build is none, in seconds: fifty years.
const LIMIT: i64 = 50 * 366 * 86_400;

/// The time that was saved.
pub fn saved(file: &Path) -> Option<i64> {
    let mut text = String::new();
    File::open(file).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Saves a time. The file is replaced as a whole: it is the old one or the new one, whenever the power goes.
pub fn save(file: &Path, seconds: i64) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    fs::write(&new, format!("{seconds}\n"))?;
    fs::rename(&new, file)
}

/// The floor: the later of `build_time` and what was saved in `file`, both in seconds since 1970.
pub fn of(build_time: i64, file: &Path) -> i64 {
    let saved = saved(file).filter(|time| *time <= build_time.saturating_add(LIMIT));
    saved.map_or(build_time, |saved| saved.max(build_time))
}

/// Moves a clock that is before the floor to it, and gives the floor: a machine with an empty battery must still tell
/// certificates that have ended from those that have not begun.
pub fn raise(build_time: i64) -> i64 {
    let floor = of(build_time, Path::new(FILE));
    if rustix::time::clock_gettime(ClockId::Realtime).tv_sec < floor {
        match rustix::time::clock_settime(ClockId::Realtime, Timespec { tv_sec: floor, tv_nsec: 0 }) {
            Ok(()) => console::warning(
                "the clock was before the image's build or the time saved last; it was moved there",
            ),
            Err(error) => console::warning(format_args!("cannot set the clock: {error}")),
        }
    }
    floor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ashlar/clock");
        assert_eq!(of(1000, &file), 1000);
        save(&file, 2000).unwrap();
        assert_eq!((of(1000, &file), of(3000, &file)), (2000, 3000));
        for nonsense in ["", "x", "99999999999999999999", "9000000000000", "-5"] {
            fs::write(&file, nonsense).unwrap();
            assert_eq!(of(1000, &file), 1000, "{nonsense}");
        }
        fs::write(&file, [b'1'; 4096]).unwrap();
        assert_eq!(of(1000, &file), 1000);
    }
}
