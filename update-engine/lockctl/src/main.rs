//! `lockctl`: shows and changes the reboot lock of a group of machines; `lockctl serve` is a FleetLock server on it.

mod arguments;
mod output;
mod reboot;
mod run;
mod serve;
mod show;

fn main() -> std::process::ExitCode {
    run::run()
}
