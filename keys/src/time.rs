//! Seconds since 1970 as certificates and firmware write them.

use crate::KeyError;
use der::DateTime;
use std::time::Duration;

/// An `EFI_TIME` in UTC with whole seconds (UEFI Specification 2.10, section 8.3).
pub(crate) type EfiTime = [u8; 16];

/// Civil time of `seconds` since 1970.
pub(crate) fn civil(seconds: i64) -> Result<DateTime, KeyError> {
    u64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_unix_duration(Duration::from_secs(seconds)).ok())
        .ok_or(KeyError::Time(seconds))
}

/// `EFI_TIME` of `seconds` since 1970. What authenticated variables want zero is zero: nanoseconds, time
/// zone, daylight saving and padding.
pub(crate) fn efi(seconds: i64) -> Result<EfiTime, KeyError> {
    let civil = civil(seconds)?;
    let [low, high] = civil.year().to_le_bytes();
    let mut time = [0; 16];
    time[..7].copy_from_slice(&[
        low,
        high,
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minutes(),
        civil.seconds(),
    ]);
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efi_times_are_in_utc() {
        // date -u -d @1767225599: 2025-12-31 23:59:59
        assert_eq!(efi(1_767_225_599).unwrap()[..7], [0xe9, 0x07, 12, 31, 23, 59, 59]);
        assert_eq!(efi(1_767_225_599).unwrap()[7..], [0; 9]);
        assert!(matches!(efi(-1), Err(KeyError::Time(-1))));
        assert!(matches!(efi(i64::MAX), Err(KeyError::Time(i64::MAX))));
    }
}
