//! The socket on which the engine is asked.

use crate::engine::{Command, Engine, Order, Outcome, Shared};
use crate::error::UpdateError;
use crate::hardware::Real;
use crate::pid1::Socket;
use ashlar_image::control::{INIT_SOCKET, MAX_LINE, Refusal, RefusalKind};
use ashlar_image::manifest::{MANIFEST_PATH, Manifest};
use ashlar_image::update::{
    MAX_BUNDLE, UPDATE_FOLDER, UPDATE_SOCKET, UpdateAnswer, UpdateReply, UpdateRequest,
};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// How long a line may take to come and an answer to go.
const DEADLINE: Duration = Duration::from_secs(20);
/// Connections at once.
const MAX_CONNECTIONS: usize = 16;
/// Orders that may wait.
const MAX_ORDERS: usize = 4;
/// What stays free of the state volume beside a bundle, in bytes.
const RESERVE: u64 = 64 << 20;

/// Runs the engine of this machine.
pub fn serve() -> Result<(), UpdateError> {
    let shared = Arc::new(Shared::default());
    let (sender, orders) = sync_channel(MAX_ORDERS);
    let listener = listen(Path::new(UPDATE_SOCKET))?;
    let folder = PathBuf::from(UPDATE_FOLDER);
    let pid1 = Arc::new(Socket::new(Path::new(INIT_SOCKET)));
    let mut engine =
        Engine::new(Box::new(Real::find()?), pid1, &folder, shared.clone(), crate::now, build_time()?)?;
    // Who has asked meanwhile waits in the socket: before this there is nothing true to be said.
    std::thread::spawn(move || accept(&listener, &shared, &sender, &folder));
    engine.run(&orders);
    Ok(())
}

/// When the release that runs was built.
fn build_time() -> Result<i64, UpdateError> {
    let fail = |error: &dyn std::fmt::Display| UpdateError::State(format!("`{MANIFEST_PATH}`: {error}"));
    let text = fs::read(MANIFEST_PATH).map_err(|error| fail(&error))?;
    serde_json::from_slice(&text).map(|manifest: Manifest| manifest.build_time).map_err(|error| fail(&error))
}

fn listen(path: &Path) -> Result<UnixListener, UpdateError> {
    let fail = |error: io::Error| UpdateError::State(format!("`{}`: {error}", path.display()));
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(listener)
}

/// Takes connections, each in a thread of its own.
pub fn accept(listener: &UnixListener, shared: &Arc<Shared>, orders: &SyncSender<Order>, folder: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (open, shared, orders, folder) =
            (open.clone(), shared.clone(), orders.clone(), folder.to_owned());
        std::thread::spawn(move || {
            if let Err(error) = answer(stream, &shared, &orders, &folder) {
                eprintln!("a request was not answered: {error}");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn refusal(kind: RefusalKind, message: impl Into<String>, advice: &str) -> Refusal {
    Refusal { kind, message: message.into(), advice: advice.into() }
}

fn answer(stream: UnixStream, shared: &Shared, orders: &SyncSender<Order>, folder: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    (&mut reader).take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
    let result = match parse(&line) {
        Ok(request) => fulfil(request, &mut reader, shared, orders, folder),
        Err(refusal) => Err(refusal),
    };
    let answer = result.map_or_else(UpdateAnswer::Error, UpdateAnswer::Ok);
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    let mut stream = stream;
    stream.write_all(&bytes)
}

/// Reads a request.
///
/// # Errors
/// What to answer.
pub fn parse(line: &[u8]) -> Result<UpdateRequest, Refusal> {
    let text = line
        .strip_suffix(b"\n")
        .ok_or_else(|| refusal(RefusalKind::Invalid, "the request is cut off or too long", ""))?;
    serde_json::from_slice(text)
        .map_err(|error| refusal(RefusalKind::Invalid, format!("the request is wrong: {error}"), ""))
}

fn fulfil(
    request: UpdateRequest,
    reader: &mut impl Read,
    shared: &Shared,
    orders: &SyncSender<Order>,
    folder: &Path,
) -> Result<UpdateReply, Refusal> {
    let command = match request {
        UpdateRequest::Status => return Ok(UpdateReply::Status(Box::new(shared.status()))),
        UpdateRequest::History => return Ok(UpdateReply::History(shared.history())),
        UpdateRequest::Why => return Ok(UpdateReply::Why(shared.whys())),
        UpdateRequest::Metrics => return Ok(UpdateReply::Metrics(shared.metrics())),
        UpdateRequest::Cancel => {
            // What is under way sees it at once; what is staged is taken back by the engine itself.
            if shared.busy.load(Ordering::Relaxed) {
                shared.cancel.store(true, Ordering::Relaxed);
                return Ok(UpdateReply::Status(Box::new(shared.status())));
            }
            Command::Cancel
        }
        UpdateRequest::Check => Command::Check,
        UpdateRequest::Plan(choice) => Command::Plan(choice),
        UpdateRequest::Stage(choice) => Command::Stage(choice),
        UpdateRequest::Apply(choice) => Command::Apply(choice),
        UpdateRequest::Rollback => Command::Rollback,
        UpdateRequest::Postpone { seconds } => Command::Postpone(seconds),
        UpdateRequest::Unbar { version } => Command::Unbar(version),
        UpdateRequest::Reboot { reason } => Command::Reboot(reason),
        UpdateRequest::Identity => Command::Identity,
        UpdateRequest::Bundle { size, restart } => Command::Bundle(keep(reader, size, folder)?, restart),
    };
    if shared.busy.load(Ordering::Relaxed) {
        return Err(refusal(
            RefusalKind::Conflict,
            "the engine is at work",
            "`ashlarctl update status` tells on what; `ashlarctl update cancel` ends it",
        ));
    }
    let (sender, receiver) = sync_channel::<Outcome>(2);
    orders
        .try_send((command, sender))
        .map_err(|_| refusal(RefusalKind::Conflict, "the engine is at work", "try again"))?;
    match receiver.recv() {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(refusal(error.kind(), error.to_string(), error.advice())),
        Err(_) => {
            Err(refusal(RefusalKind::Failed, "the engine has ended", "it is started again; look at its log"))
        }
    }
}

/// Keeps a bundle that comes behind the request.
fn keep(reader: &mut impl Read, size: u64, folder: &Path) -> Result<PathBuf, Refusal> {
    let fail = |error: io::Error| {
        refusal(
            RefusalKind::Failed,
            format!("the bundle cannot be kept: {error}"),
            "look at the state volume",
        )
    };
    if size == 0 || size > MAX_BUNDLE {
        return Err(refusal(
            RefusalKind::Invalid,
            format!("a bundle has 1 to {MAX_BUNDLE} bytes, not {size}"),
            "",
        ));
    }
    let room = rustix::fs::statvfs(folder).map_err(|error| fail(error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < size.saturating_add(RESERVE) {
        let message = format!("the bundle has {size} bytes, and the state volume has {free} left");
        return Err(refusal(RefusalKind::Conflict, message, "make room, or use a channel on a server"));
    }
    let path = folder.join("bundle.tar");
    let mut file = File::create(&path).map_err(fail)?;
    let copied = io::copy(&mut reader.take(size), &mut file).map_err(fail)?;
    if copied != size {
        let _ = fs::remove_file(&path);
        return Err(refusal(
            RefusalKind::Invalid,
            format!("the bundle ended after {copied} of {size} bytes"),
            "send it again",
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::update::Choice;

    #[test]
    fn requests() {
        for request in [
            UpdateRequest::Status,
            UpdateRequest::Stage(Choice { version: Some("1.1".into()), now: true, force: false }),
            UpdateRequest::Plan(Choice::default()),
            UpdateRequest::Postpone { seconds: 60 },
            UpdateRequest::Bundle { size: 7, restart: true },
        ] {
            let mut line = serde_json::to_vec(&request).unwrap();
            line.push(b'\n');
            assert_eq!(parse(&line).unwrap(), request);
        }
        assert_eq!(parse(b"{\"op\":\"plan\"}\n").unwrap(), UpdateRequest::Plan(Choice::default()));
        for bad in [
            &b"{\"op\":\"status\"}"[..],
            b"\n",
            b"{}\n",
            b"{\"op\":\"burn\"}\n",
            b"{\"op\":\"postpone\",\"seconds\":-1}\n",
        ] {
            assert_eq!(parse(bad).unwrap_err().kind, RefusalKind::Invalid);
        }
    }

    #[test]
    fn bundles_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = keep(&mut &b"0123456789"[..], 4, folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"0123");
        assert!(keep(&mut &b"01"[..], 4, folder.path()).unwrap_err().message.contains("after 2 of 4"));
        assert!(!path.exists());
        assert!(keep(&mut &b""[..], 0, folder.path()).is_err());
        assert!(keep(&mut &b""[..], MAX_BUNDLE + 1, folder.path()).is_err());
    }
}
