//! Ways to a TPM. Every one has a deadline: a TPM that does not answer is an error, never a hang.

use crate::command::{HEADER, MAX_FRAME, announced_size};
use crate::wire::WireError;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take. The longest commands (making RSA keys) take tens of seconds on discrete
/// TPMs; the kernel's own limit is five minutes.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Why a TPM could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The device or socket cannot be opened.
    #[error("cannot open {path}: {source}; see that the machine has a TPM 2.0 and that it is switched on")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Sending or receiving failed.
    #[error("the connection to the TPM failed: {0}; power the machine off and on if this repeats")]
    Io(#[from] io::Error),
    /// No answer came in time.
    #[error("the TPM did not answer within {} seconds; power the machine off and on", .0.as_secs())]
    Deadline(Duration),
    /// The answer's header is wrong.
    #[error("the TPM's answer cannot be read: {0}")]
    Frame(WireError),
    /// A recording holds something else.
    #[error("the recording holds another command at step {0}; record it again")]
    Replay(usize),
}

/// Sends one command and receives its answer, both as whole frames.
pub trait Transport {
    /// The answer to `command`.
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError>;
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        (**self).transact(command)
    }
}

/// The kernel's device: `/dev/tpmrm0` (with the resource manager) or `/dev/tpm0`.
#[derive(Debug)]
pub struct Device {
    file: File,
    deadline: Duration,
}

impl Device {
    /// The device with the kernel's resource manager, which every program should use.
    pub const PATH: &str = "/dev/tpmrm0";

    /// Opens the device at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TransportError> {
        let path = path.as_ref();
        // Without blocking: the kernel then runs the command in the background and `poll` tells its end.
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(|source| TransportError::Open { path: path.into(), source })?;
        Ok(Self { file, deadline: DEADLINE })
    }
}

impl Transport for Device {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        // The device takes a command as one write and gives the answer as one read.
        self.file.write_all(command)?;
        let seconds = i64::try_from(self.deadline.as_secs()).unwrap_or(i64::MAX);
        loop {
            let mut descriptors = [PollFd::new(&self.file, PollFlags::IN)];
            match rustix::event::poll(&mut descriptors, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })) {
                Ok(0) => return Err(TransportError::Deadline(self.deadline)),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(TransportError::Io(error.into())),
            }
        }
        let mut answer = vec![0; MAX_FRAME];
        let length = self.file.read(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// A stream that carries raw TPM frames, as swtpm's data channel does.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    deadline: Duration,
}

impl Socket<TcpStream> {
    /// Connects to a TCP port.
    pub fn connect_tcp(address: SocketAddr) -> Result<Self, TransportError> {
        let open = |source| TransportError::Open { path: address.to_string().into(), source };
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(open)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, deadline: DEADLINE })
    }
}

impl Socket<UnixStream> {
    /// Connects to a socket in the file system.
    pub fn connect_unix(path: impl AsRef<Path>) -> Result<Self, TransportError> {
        let path = path.as_ref();
        let stream =
            UnixStream::connect(path).map_err(|source| TransportError::Open { path: path.into(), source })?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, deadline: DEADLINE })
    }
}

impl<S: Read + Write> Transport for Socket<S> {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let deadline = self.deadline;
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TransportError::Deadline(deadline),
            _ => TransportError::Io(error),
        };
        self.stream.write_all(command).map_err(late)?;
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).map_err(late)?;
        let size = announced_size(header).map_err(TransportError::Frame)?;
        let mut answer = vec![0; size];
        answer[..HEADER].copy_from_slice(&header);
        self.stream.read_exact(&mut answer[HEADER..]).map_err(late)?;
        Ok(answer)
    }
}

/// Passes everything on and keeps it, as fixture for [`Replay`].
#[derive(Debug)]
pub struct Recording<T> {
    inner: T,
    frames: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<T: Transport> Recording<T> {
    /// Records what goes through `inner`.
    pub const fn new(inner: T) -> Self {
        Self { inner, frames: Vec::new() }
    }

    /// Commands and answers so far, in order.
    pub fn frames(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.frames
    }
}

impl<T: Transport> Transport for Recording<T> {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let answer = self.inner.transact(command)?;
        self.frames.push((command.to_vec(), answer.clone()));
        Ok(answer)
    }
}

/// Gives recorded answers to exactly the recorded commands.
#[derive(Debug)]
pub struct Replay {
    frames: VecDeque<(Vec<u8>, Vec<u8>)>,
    step: usize,
}

impl Replay {
    /// Replays `frames`.
    pub fn new(frames: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        Self { frames: frames.into_iter().collect(), step: 0 }
    }
}

impl Transport for Replay {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let step = self.step;
        self.step += 1;
        match self.frames.pop_front() {
            Some((wanted, answer)) if wanted == command => Ok(answer),
            _ => Err(TransportError::Replay(step)),
        }
    }
}
