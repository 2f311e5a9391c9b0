//! `ashlarctl`; all of it is in the library.

fn main() -> std::process::ExitCode {
    ashlar_control::cli::run()
}
