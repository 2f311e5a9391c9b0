//! A machine configuration: what is refused is refused with a place in the text; what is taken is the same when it is
//! written and read again.
#![no_main]

use ashlar_image::machine::{ConfigError, MAX_ERRORS, MachineConfig, diff};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match MachineConfig::parse(text) {
        Ok(config) => {
            let written = toml::to_string(&config).expect("it can be written");
            let again = MachineConfig::parse(&written).expect("what was written is read");
            assert_eq!(again, config);
            let changes = diff(&config, &again);
            assert!(changes.at_once.is_empty() && changes.needs_reboot.is_empty());
            let _ = diff(&MachineConfig::empty(0), &config);
        }
        Err(errors) => {
            assert!((1..=MAX_ERRORS).contains(&errors.len()));
            for error in errors {
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
                let ConfigError::Text(error) = error else { continue };
                assert!(text.get(error.span.clone()).is_some(), "{error:?}");
                let lines = text.matches('\n').count() + 1;
                assert!((1..=lines).contains(&error.line) && error.column > 0, "{error:?}");
            }
        }
    }
});
