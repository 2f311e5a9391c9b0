//! The command line.

mod configuration;
mod generate;
mod identity;
mod logs;
mod machine;
mod node;
mod output;
mod serve;
mod services;
mod status;
mod trust;
mod update;

use crate::error::{ControlError, exit};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Asks and tells an Ashlar machine: this one, or another over the network.
#[derive(Debug, Parser)]
#[command(name = "ashlarctl", version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    node: node::Node,
    #[command(subcommand)]
    command: Command,
}

/// The exit codes for `--help`; they are those of [`crate::error::exit`].
const EXIT_CODES: &str = "Exit codes: 0 done; for `status`: the machine is good · 1 `status`: it is not good · 2 an argument is wrong · \
     3 the machine does not answer · 4 it refuses · 5 its certificate is not trusted, or it does not trust ours · \
     6 a file of this computer cannot be read or written";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what runs and whether the machine is good
    Status,
    /// List services and containers
    Services,
    /// Start, stop or restart a service or container
    #[command(subcommand)]
    Service(services::Service),
    /// Show the log
    Logs(logs::Logs),
    /// Show the machine configuration or give it a new one
    #[command(subcommand)]
    Config(configuration::Config),
    /// Show the TPM's registers and what init measured
    Measurements,
    /// Restart the machine
    Reboot,
    /// Switch the machine off
    PowerOff,
    /// Look after the state volume
    #[command(subcommand)]
    State(machine::State),
    /// Look for updates, install them, go back, and see why not
    #[command(subcommand)]
    Update(update::Update),
    /// Trust a machine by the fingerprint of its certificate
    Trust(trust::Trust),
    /// Make certificates for clients
    #[command(subcommand)]
    Identity(identity::Identity),
    /// Serve the control API on this machine; PID 1 starts it
    Serve(serve::Serve),
    /// Write completions and manual pages
    #[command(subcommand, hide = true)]
    Generate(generate::Generate),
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    let Arguments { node, command } = Arguments::parse();
    let result = match command {
        Command::Status => status::run(&node),
        Command::Services => services::list(&node),
        Command::Service(service) => service.run(&node),
        Command::Logs(logs) => logs.run(&node),
        Command::Config(config) => config.run(&node),
        Command::Measurements => machine::measurements(&node),
        Command::Reboot => machine::end(&node, "/v1/reboot", "restarts"),
        Command::PowerOff => machine::end(&node, "/v1/power-off", "switches off"),
        Command::State(state) => state.run(&node),
        Command::Update(update) => update.run(&node),
        Command::Trust(trust) => trust.run(&node),
        Command::Identity(identity) => identity.run(),
        Command::Serve(serve) => serve.run(),
        Command::Generate(generate) => generate.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a command comes to.
type Outcome = Result<ExitCode, ControlError>;

/// Done.
const DONE: Outcome = Ok(ExitCode::SUCCESS);

/// The exit code of `status`.
fn good(good: bool) -> ExitCode {
    ExitCode::from(if good { exit::GOOD } else { exit::NOT_GOOD })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_people_type() {
        for line in [
            "status",
            "--node edge-1 status",
            "status --node [::1]:7443 --json",
            "--fingerprint sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad services",
            "service restart web",
            "logs -f --unit web --unit db -n 50 --since 10m --boot -1 -p 4",
            "logs kernel web -f",
            "config show",
            "config apply machine.dsse --dry-run",
            "state reseal",
            "power-off",
            "trust edge-1:99",
            "identity new-ca",
            "identity new alice --role operator",
            "serve --listen 0.0.0.0:7443 --listen [::]:7443 --trust-roots /run/r.pem --identity /var/lib/i",
            "generate completions bash",
        ] {
            let words = std::iter::once("ashlarctl").chain(line.split(' '));
            Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in
            ["", "service burn web", "--node a:b status", "identity new alice --role root", "logs -p 9"]
        {
            let words = std::iter::once("ashlarctl").chain(line.split_whitespace());
            assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
