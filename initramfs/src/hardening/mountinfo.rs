//! Mounts, as `/proc/PID/mountinfo` lists them (proc_pid_mountinfo(5)).

use ashlar_image::hardening::Mounted;

/// Most mounts that are looked at.
pub const MAX_MOUNTS: usize = 4096;

/// Undoes the kernel's `\040` for a space, `\011`, `\012`, `\043` and `\134`.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(3)?;
        let value = digits.iter().try_fold(0u32, |value, digit| {
            matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
        })?;
        bytes.push(u8::try_from(value).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: after the sixth field there may be
/// others up to a hyphen.
fn line(text: &str) -> Option<Mounted> {
    let mut fields = text.split(' ');
    let target = unescape(fields.nth(4)?)?;
    let own = fields.next()?;
    fields.find(|field| *field == "-")?;
    let kind = fields.next()?.to_owned();
    let _source = fields.next()?;
    let of_system = fields.next().unwrap_or_default();
    let options = own.split(',').chain(of_system.split(',')).filter(|option| !option.is_empty());
    let mut all: Vec<String> = Vec::new();
    for option in options {
        if !all.iter().any(|known| known == option) {
            all.push(option.to_owned());
        }
    }
    Some(Mounted { target, kind, options: all })
}

/// The mounts of the file. None if a line cannot be understood or there are more than [`MAX_MOUNTS`]: a list that
/// leaves one out is worth nothing.
pub fn parse(text: &str) -> Option<Vec<Mounted>> {
    let mounts: Option<Vec<Mounted>> = text.lines().take(MAX_MOUNTS + 1).map(line).collect();
    mounts.filter(|mounts| mounts.len() <= MAX_MOUNTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "21 1 254:0 / / ro,nosuid,nodev,relatime - erofs /dev/dm-0 ro,user_xattr,acl\n\
        22 21 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:3 master:1 - proc proc rw,hidepid=invisible\n\
        23 21 0:22 / /with\\040space\\134 rw - tmpfs tmpfs rw,size=1k\n";

    #[test]
    fn lines() {
        let mounts = parse(TEXT).unwrap();
        assert_eq!(mounts.len(), 3);
        assert_eq!((mounts[0].target.as_str(), mounts[0].kind.as_str()), ("/", "erofs"));
        assert_eq!(mounts[0].options, ["ro", "nosuid", "nodev", "relatime", "user_xattr", "acl"]);
        assert_eq!(mounts[1].options, ["rw", "nosuid", "nodev", "noexec", "relatime", "hidepid=invisible"]);
        assert_eq!(mounts[2].target, "/with space\\");
        assert_eq!(parse(""), Some(Vec::new()));
        for bad in [
            "21 1 254:0 / /",
            "21 1 254:0 / / rw - ",
            "1 2 3:4 / /a\\04 rw - a b c",
            "1 2 3 / /\\777 rw - a b c",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let many = "1 1 1:1 / / rw - a b c\n".repeat(MAX_MOUNTS + 1);
        assert_eq!(parse(&many), None);
    }

    #[test]
    fn this_machine() {
        let mounts = parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap()).unwrap();
        assert!(mounts.iter().any(|mount| mount.target == "/proc" && mount.kind == "proc"), "{mounts:?}");
    }

    proptest! {
        #[test]
        fn anything(text in ".{0,300}", at in 0..TEXT.len(), byte in any::<u8>()) {
            let _ = parse(&text);
            let mut changed = TEXT.as_bytes().to_vec();
            changed[at] = byte;
            let _ = parse(&String::from_utf8_lossy(&changed));
            let _ = parse(&TEXT[..at]);
        }
    }
}
