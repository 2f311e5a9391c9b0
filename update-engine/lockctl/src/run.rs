//! What each command does.

use crate::arguments::{Arguments, Command, Problem};
use crate::output::{print, printable};
use crate::{reboot, serve, show};
use ashlar_lock::{Gate, HolderId, LockError, Request, Stale, StoreError};
use clap::{CommandFactory, Parser};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}", printable(&problem.text));
            ExitCode::from(problem.code)
        }
    }
}

fn store(what: &str) -> impl Fn(StoreError) -> Problem + '_ {
    move |error| {
        let code = if matches!(error, StoreError::Unavailable(_)) { 3 } else { 4 };
        Problem::new(code, format!("Error {what}: {error}"))
    }
}

fn failed(what: &str) -> impl Fn(LockError) -> Problem + '_ {
    move |error| match error {
        LockError::Store(error) => store(what)(error),
        other => Problem::new(1, format!("Error {what}: {other}")),
    }
}

fn own(id: Option<&HolderId>) -> Result<HolderId, Problem> {
    id.cloned().map_or_else(HolderId::of_machine, Ok).map_err(|text| Problem::new(Problem::ARGUMENT, text))
}

fn unprintable(error: serde_json::Error) -> Problem {
    let text = error.to_string();
    drop(error);
    Problem::new(4, text)
}

fn act(arguments: &Arguments) -> Result<(), Problem> {
    let place = &arguments.place;
    let json = |value: serde_json::Value| {
        if arguments.json {
            print(&format!("{value}\n"));
        }
    };
    match &arguments.command {
        Command::Status { wide } => {
            let seen = place.lock()?.read().map_err(store("reading the semaphore"))?;
            if arguments.json {
                print(&show::status_json(&place.group, &seen).map_err(unprintable)?);
            } else {
                print(&show::status(&seen, *wide));
            }
        }
        Command::Lock { id, reason, wait } => {
            let mut lock = place.lock()?;
            let request = Request::new(own(id.as_ref())?, reason.clone());
            let granted = if *wait == 0 {
                lock.try_lock(&request, false)
            } else {
                lock.lock(&request, Instant::now() + Duration::from_secs(*wait))
            };
            let granted = granted.map_err(failed("locking"))?;
            json(serde_json::json!({ "id": request.id.as_str(), "revision": granted.revision }));
        }
        Command::Unlock { id } => {
            let id = own(id.as_ref())?;
            place.lock()?.unlock(&id, None, false, "by hand").map_err(failed("unlocking"))?;
            json(serde_json::json!({ "id": id.as_str() }));
        }
        Command::SetMax { max } => {
            let (old, new) = place.lock()?.set_max(*max).map_err(failed("setting the maximum"))?;
            if arguments.json {
                json(serde_json::json!({ "old": old, "max": new }));
            } else {
                print(&format!("Old-Max: {old}\nMax: {new}\n"));
            }
        }
        Command::SetStale { after, automatic } => {
            let stale = after.0.map(|after| Stale { after, automatic: *automatic });
            let semaphore = place.lock()?.set_stale(stale).map_err(failed("setting the bound"))?;
            json(serde_json::json!({ "stale": semaphore.stale }));
        }
        Command::SetGate { share, at_least } => {
            let gate = share.0.map(|share| Gate { share, at_least: *at_least });
            let semaphore = place.lock()?.set_gate(gate).map_err(failed("setting the gate"))?;
            json(serde_json::json!({ "gate": semaphore.gate }));
        }
        Command::Resume { release } => {
            let semaphore = place.lock()?.resume(release.as_deref()).map_err(failed("resuming"))?;
            json(serde_json::json!({ "results": semaphore.results }));
        }
        Command::History { count } => {
            let events = place.lock()?.history().map_err(store("reading the history"))?;
            let last = events.get(events.len().saturating_sub(*count)..).unwrap_or_default();
            print(&show::history(last, arguments.json).map_err(unprintable)?);
        }
        Command::Reboot { reason } => {
            reboot::reboot(reason)?;
            json(serde_json::json!({ "ordered": true }));
        }
        Command::Serve(options) => serve::serve(place, options)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "lockctl", &mut script);
            print(&String::from_utf8_lossy(&script));
        }
        Command::Man { directory } => {
            let fail = |error: std::io::Error| {
                let text = format!("manual pages cannot be written to `{}`: {error}", directory.display());
                Problem::new(Problem::FILE, text)
            };
            std::fs::create_dir_all(directory).map_err(fail)?;
            pages(&Arguments::command(), "lockctl", directory).map_err(fail)?;
        }
    }
    Ok(())
}

fn pages(command: &clap::Command, name: &str, folder: &Path) -> std::io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        pages(part, &format!("{name}-{}", part.get_name()), folder)?;
    }
    Ok(())
}
