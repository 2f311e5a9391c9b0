//! The end of a machine that cannot start: a reason on every console, then a new start. There is no shell, no
//! prompt and no way on.

use crate::error::Error;
use crate::{cgroup, console, measure, trial};
use rustix::system::RebootCommand;
use std::time::Duration;

/// How long the reason stays on the console before the machine starts again, in seconds.
pub const REBOOT_AFTER: u64 = 30;
/// The same in the trial of a release: the old one runs again the sooner.
pub const TRIAL_AFTER: u64 = 5;
/// What the block on the console begins with; tests and monitoring look for it.
pub const MARK: &str = "ashlar: cannot start: ";

/// The block for `error`; the machine starts again after `seconds`.
pub fn block(error: &Error, seconds: u64) -> String {
    let rule = "=".repeat(72);
    format!(
        "\n{rule}\n{MARK}{error}\n  What to do: {}.\n  The machine starts again in {seconds} seconds.\n{rule}\n",
        error.advice()
    )
}

/// Shows `error`, stops what runs, shuts the TPM down and starts the machine again.
pub fn stop(error: &Error) -> ! {
    console::keep(format_args!("cannot start: {error}"));
    let wait = if trial::note_start_failure(&error.to_string()) { TRIAL_AFTER } else { REBOOT_AFTER };
    console::announce(&block(error, wait));
    // What was started must not go on in a machine that has failed.
    cgroup::kill_payload();
    rustix::fs::sync();
    std::thread::sleep(Duration::from_secs(wait));
    measure::shut_down();
    reboot(RebootCommand::Restart)
}

/// Ends the machine. Comes back in no case: PID 1 that ends is a panic of the kernel.
pub fn reboot(command: RebootCommand) -> ! {
    loop {
        if let Err(error) = rustix::system::reboot(command) {
            console::error(format_args!("the kernel refuses to reboot: {error}"));
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// Makes a panic end like every other failure.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| stop(&Error::Panic(info.to_string()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_says_what_and_what_to_do() {
        let text = block(&Error::NoTpm { path: "/dev/tpmrm0", seconds: 30 }, REBOOT_AFTER);
        assert!(text.contains("\nashlar: cannot start: there is no TPM 2.0"), "{text}");
        assert!(text.contains("What to do: switch the TPM"), "{text}");
        assert!(text.contains("starts again in 30 seconds"), "{text}");
    }
}
