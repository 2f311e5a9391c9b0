//! Small formats that the lint reads: a byte to choose the format, the content.
#![no_main]

use ashlar_lint::{KernelConfig, describe_capabilities, glob_matches, parse_os_release};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    if choice % 4 == 0 {
        let _ = describe_capabilities(bytes);
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match choice % 4 {
        1 => {
            let (_, bad) = parse_os_release(text);
            let lines = text.lines().count();
            assert!(bad.iter().all(|line| (1..=lines).contains(line)), "{bad:?}");
        }
        2 => drop(KernelConfig::parse(text)),
        _ => {
            let Some((pattern, path)) = text.split_once('\n') else { return };
            let _ = glob_matches(pattern, path);
            if !pattern.contains(['*', '?']) {
                assert_eq!(glob_matches(pattern, path), pattern == path);
            }
            assert!(glob_matches("**", path));
        }
    }
});
