//! The command line.

mod build;
mod cache;
mod channel;
mod compare;
mod generate;
mod inspect;
mod keys;
mod lint;
mod machine;
mod new;
mod qemu;
mod sign;

use crate::error::BuildError;
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Builds, inspects and starts measured operating system images.
#[derive(Debug, Parser)]
#[command(name = "ashlar", version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The exit codes for `--help`; they are those of [`crate::error::exit`].
const EXIT_CODES: &str = "Exit codes: 0 done · 2 an argument, the recipe or an input file is wrong · 3 packages cannot be had · \
     4 keys are missing or wrong · 5 the result cannot be written · 6 a virtual machine failed, or measured \
     something else than predicted · 7 the lint or `channel check` found an error, or two releases differ";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make and look at keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Write a first recipe
    Init(new::Init),
    /// Build a release from a recipe
    Build(build::Build),
    /// Look for what should not be in an image, without signing
    Lint(lint::Lint),
    /// Sign what `ashlar build --unsigned` has written, where the keys are
    Sign(sign::Sign),
    /// Make a release from an unsigned one and its signatures
    Attach(sign::Attach),
    /// Build a release again from its recipe and compare, byte for byte
    VerifyRelease(compare::VerifyRelease),
    /// Tell what changed from one release to another
    Diff(compare::Diff),
    /// Look at the cache of packages and stages, and make room in it
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Tell what a file is and what is in it
    Inspect(inspect::Inspect),
    /// Start a release in a virtual machine with Secure Boot and a TPM
    Qemu(qemu::Qemu),
    /// Check, sign and show machine configurations, and put them on new disks
    #[command(subcommand)]
    Machine(machine::Machine),
    /// Make and change update channels: a folder that any web server, bucket or USB stick can hold
    #[command(subcommand)]
    Channel(Box<channel::Channel>),
    /// Print the JSON schema of recipes or machine configurations, for editors
    Schema(Schema),
    /// Print shell completions
    Completions(generate::Completions),
    /// Write manual pages
    Man(generate::Man),
}

#[derive(Debug, clap::Args)]
struct Schema {
    /// Of which file
    #[arg(value_enum, default_value_t)]
    of: Document,
}

/// A file with a schema.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Document {
    /// A recipe of an image
    #[default]
    Recipe,
    /// A machine configuration
    Machine,
}

impl Schema {
    fn run(&self) -> Result<ExitCode, BuildError> {
        print_json(&match self.of {
            Document::Recipe => crate::recipe::schema(),
            Document::Machine => ashlar_image::machine::schema(),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Width of errors in columns where nobody's terminal gives it: paths in logs stay in one piece.
const LOG_WIDTH: usize = 10_000;

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    if !std::io::stderr().is_terminal() {
        // It fails only where one was set before, and none was.
        let _ = miette::set_hook(Box::new(|_| {
            Box::new(miette::MietteHandlerOpts::new().width(LOG_WIDTH).build())
        }));
    }
    let result = match Arguments::parse().command {
        Command::Keys(keys) => keys.run(),
        Command::Build(build) => build.run(),
        Command::Init(init) => init.run(),
        Command::Lint(lint) => lint.run(),
        Command::VerifyRelease(verify) => verify.run(),
        Command::Diff(diff) => diff.run(),
        Command::Schema(schema) => schema.run(),
        Command::Machine(machine) => machine.run(),
        Command::Channel(channel) => channel.run(),
        Command::Sign(sign) => sign.run(),
        Command::Attach(attach) => attach.run(),
        Command::Cache(cache) => cache.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Qemu(qemu) => qemu.run(),
        Command::Completions(completions) => {
            completions.run();
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(man) => man.run(),
    };
    result.unwrap_or_else(|error| {
        let code = error.exit_code();
        eprintln!("{:?}", miette::Report::new(error));
        ExitCode::from(code)
    })
}

/// Prints a report as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), BuildError> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?));
    Ok(())
}

/// Prints to standard output; a reader that has gone away (`| head`) is no error.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
