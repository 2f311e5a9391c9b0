//! PID 1 before and after the switch of root. Nothing of it is written yet: started, it says so and fails.

fn main() -> std::process::ExitCode {
    eprintln!("ashlar-init: not written yet");
    std::process::ExitCode::FAILURE
}
