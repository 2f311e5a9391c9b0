//! Children that die with their parent, however it dies.
//!
//! The kernel's parent-death signal (`prctl(2)`, `PR_SET_PDEATHSIG`) fires when the *thread* that forked
//! ends, so one thread that lives as long as the process does all the forking.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

type Job = (Command, Sender<io::Result<Child>>);

/// The way to the thread that forks; none if it could not be started.
type Spawner = Option<Mutex<Sender<Job>>>;

static SPAWNER: OnceLock<Spawner> = OnceLock::new();

/// Starts `command` in a process group of its own, so that an interrupt typed at the terminal reaches this
/// program only, which then stops the machine in order.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    die_with_parent(&mut command);
    let gone = || io::Error::other("the thread that starts programs is gone");
    let spawner = SPAWNER.get_or_init(start_spawner).as_ref().ok_or_else(gone)?;
    let (answer, result) = channel();
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

fn start_spawner() -> Spawner {
    let (sender, jobs) = channel::<Job>();
    let thread = std::thread::Builder::new().name("spawner".into());
    thread
        .spawn(move || {
            for (mut command, answer) in jobs {
                // Nobody waits for the answer only if the asking thread is gone with the whole process.
                let _ = answer.send(command.spawn());
            }
        })
        .ok()?;
    Some(Mutex::new(sender))
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let hook = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the line above.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    };
    // SAFETY: the hook runs between fork and exec, where only async-signal-safe work is allowed. It makes
    // two plain system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(hook) };
}
