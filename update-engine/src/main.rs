//! The update engine of a machine; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ashlar_update::run()
}
