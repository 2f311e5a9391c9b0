//! The power button (Linux, `include/uapi/linux/input.h` and `input-event-codes.h`).

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `KEY_POWER`.
const KEY_POWER: usize = 116;
/// `EV_KEY`.
const EV_KEY: u16 = 1;
/// `sizeof(struct input_event)` of 64-bit machines: two words of time, type, code, value.
const EVENT: usize = 24;

/// Whether a device has the key, from its `capabilities/key`: hexadecimal words of 64 bits, the highest first.
pub fn has_key(capabilities: &str, key: usize) -> bool {
    capabilities
        .split_whitespace()
        .rev()
        .nth(key / 64)
        .and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (key % 64) & 1 == 1)
}

/// Whether events that were read say that the power button was pressed.
pub fn says_power(events: &[u8]) -> bool {
    events.as_chunks::<EVENT>().0.iter().any(|event| {
        let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        half(16) == EV_KEY && usize::from(half(18)) == KEY_POWER && event[20..24] == 1i32.to_ne_bytes()
    })
}

/// Opens the input devices with a power button whose kernel names are not in `known`.
pub fn power_buttons(known: &[String]) -> Vec<(String, File)> {
    let mut buttons = Vec::new();
    for entry in fs::read_dir("/sys/class/input").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with("event") || known.contains(&name) {
            continue;
        }
        let capabilities = fs::read_to_string(entry.path().join("device/capabilities/key"));
        if !capabilities.is_ok_and(|capabilities| has_key(&capabilities, KEY_POWER)) {
            continue;
        }
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let path = Path::new("/dev/input").join(&name);
        if let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) {
            buttons.push((name, file));
        }
    }
    buttons
}

/// Reads what a button says: whether it was pressed; none when the device is gone.
pub fn pressed(mut button: &File) -> Option<bool> {
    let mut buffer = [0; EVENT * 64];
    match button.read(&mut buffer) {
        Ok(length) => Some(says_power(buffer.get(..length).unwrap_or_default())),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) =>
        {
            Some(false)
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_capabilities() {
        // An ACPI power button, and a keyboard.
        assert!(has_key("10000000000000 0\n", KEY_POWER));
        assert!(has_key("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe", 1));
        assert!(!has_key("402000000 3803078f800d001 0 0", KEY_POWER));
        assert!(!has_key("0", KEY_POWER));
        assert!(!has_key("not a number", 0));
    }

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn pressed_and_released() {
        let press = [event(0, 0, 0), event(1, 116, 1)].concat();
        assert!(says_power(&press));
        assert!(!says_power(&press[..47]));
        assert!(!says_power(&event(1, 116, 0)));
        assert!(!says_power(&event(1, 115, 1)));
        assert!(!says_power(&event(2, 116, 1)));
        assert!(!says_power(&[]));
    }
}
