//! Text files of an unpacked root: a byte to choose the format, the text.
#![no_main]

use ashlar_configure::parsers::{commands, parse_group, parse_passwd, parse_sysusers_line};
use std::collections::BTreeSet;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match choice % 4 {
        0 => text.lines().for_each(|line| drop(parse_sysusers_line(line))),
        1 => {
            if let Ok(users) = parse_passwd(text, "passwd") {
                let names: BTreeSet<_> = users.iter().map(|user| &user.name).collect();
                assert_eq!(names.len(), users.len(), "a name stands twice");
            }
        }
        2 => {
            if let Ok(groups) = parse_group(text, "group") {
                let names: BTreeSet<_> = groups.iter().map(|group| &group.name).collect();
                assert_eq!(names.len(), groups.len(), "a name stands twice");
            }
        }
        _ => {
            for command in commands(text) {
                assert!((1..=text.lines().count()).contains(&command.line), "line {}", command.line);
                let _ = (command.name(), command.arguments(), command.shown());
            }
        }
    }
});
