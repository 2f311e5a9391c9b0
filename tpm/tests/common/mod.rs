//! A running swtpm, tools that we did not write, and what a test puts between us and the TPM.
#![allow(dead_code)] // each test program uses a part

pub mod owner;

use ashlar_tpm::{Socket, StartupType, Tpm, Transport, TransportError};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a tool may run, or swtpm may take to listen. They take far below a second; the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const ZERO: [u8; 32] = [0; 32];

/// Says why a test cannot run. Fails instead with `ASHLAR_TESTS_NO_SKIP` set.
pub fn skip(what: &str, package: &str) {
    let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
    assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and {what} is not installed (package {package})");
    eprintln!("skipped: {what} is not installed (package {package})");
}

/// How swtpm takes commands.
pub enum Data {
    Unix,
    Tcp(u16),
}

/// A running swtpm. Ends with the value; its state goes with the folder.
pub struct Swtpm {
    folder: tempfile::TempDir,
    process: Child,
}

impl Swtpm {
    /// Starts a new one, with an unstarted TPM; none where swtpm is not installed.
    pub fn new() -> Option<Self> {
        Self::start(tempfile::tempdir().unwrap(), &Data::Unix)
    }

    pub fn start(folder: tempfile::TempDir, data: &Data) -> Option<Self> {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let server = match data {
            Data::Unix => format!("type=unixio,path={}", path("data")),
            Data::Tcp(port) => format!("type=tcp,port={port}"),
        };
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .args(["--tpmstate", &format!("dir={}", path(""))])
            .args(["--server", &server])
            // tpm2-tools expect the control channel here.
            .args(["--ctrl", &format!("type=unixio,path={}", path("data.ctrl"))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(Self { folder, process }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                skip("swtpm", "swtpm");
                None
            }
            Err(error) => panic!("swtpm: {error}"),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder().join(name)).unwrap()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder().join(name), bytes).unwrap();
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The TPM, over the socket in the file system.
    pub fn tpm(&mut self) -> Tpm<Socket<UnixStream>> {
        Tpm::new(self.unix())
    }

    pub fn unix(&mut self) -> Socket<UnixStream> {
        let path = self.socket();
        self.connect(|| Socket::connect_unix(&path))
    }

    /// The TPM, started as firmware does.
    pub fn started(&mut self) -> Tpm<Socket<UnixStream>> {
        let mut tpm = self.tpm();
        tpm.startup(StartupType::Clear).unwrap();
        tpm
    }

    /// Connects as soon as swtpm listens.
    pub fn connect<S>(&mut self, connect: impl Fn() -> Result<Socket<S>, TransportError>) -> Socket<S> {
        let start = Instant::now();
        loop {
            match connect() {
                Ok(socket) => return socket,
                Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
            }
            assert!(self.ended().is_none(), "swtpm ended before it listened");
            sleep(Duration::from_millis(20));
        }
    }

    /// Power off and on again. Whatever was not shut down is lost.
    pub fn restart(mut self) -> Self {
        self.stop();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start(folder, &Data::Unix).unwrap()
    }

    pub fn stop(&mut self) {
        // By the process itself, never by a name; it may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for socket in ["data", "data.ctrl"] {
            let _ = std::fs::remove_file(self.folder().join(socket));
        }
    }

    /// Runs one of tpm2-tools in the folder; none where they are not installed. swtpm serves one connection at a time,
    /// so ours must be closed.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new(name);
        command
            .args(arguments)
            .current_dir(self.folder())
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket().display()));
        let output = run(&mut command, "tpm2-tools", &[])?;
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        Some(output)
    }

    /// The same for a line of words, and gives the text. Then frees what the tool left in the TPM: there is no resource
    /// manager.
    pub fn tools(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let output = self.tool(words[0], &words[1..])?;
        self.tool("tpm2_flushcontext", &["-t"])?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a program with this input and a deadline; none where it is not installed.
pub fn run(command: &mut Command, package: &str, input: &[u8]) -> Option<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&name, package);
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    // It fits into a pipe; a program that does not read it is fine.
    let _ = child.stdin.take().unwrap().write_all(input);
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() < DEADLINE => sleep(Duration::from_millis(5)),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{name} did not end in time");
            }
        }
    };
    // What these tools print fits into a pipe, so it could be read after their end.
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    child.stdout.take().unwrap().read_to_end(&mut output.stdout).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut output.stderr).unwrap();
    Some(output)
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub fn extended(pcr: [u8; 32], digest: [u8; 32]) -> [u8; 32] {
    sha256(&[pcr, digest].concat())
}

/// What a [`Between`] does to a command: may change it, or answer in the TPM's place.
type OnCommand<'a> = Box<dyn FnMut(&mut Socket<UnixStream>, &mut Vec<u8>) -> Option<Vec<u8>> + 'a>;
/// What it does to an answer.
type OnAnswer<'a> = Box<dyn FnMut(u32, &mut Vec<u8>) + 'a>;

/// Somebody between us and the TPM.
pub struct Between<'a> {
    pub inner: Socket<UnixStream>,
    pub command: OnCommand<'a>,
    pub answer: OnAnswer<'a>,
}

impl<'a> Between<'a> {
    pub fn commands(
        inner: Socket<UnixStream>,
        command: impl FnMut(&mut Socket<UnixStream>, &mut Vec<u8>) -> Option<Vec<u8>> + 'a,
    ) -> Self {
        Self { inner, command: Box::new(command), answer: Box::new(|_, _| ()) }
    }

    pub fn answers(inner: Socket<UnixStream>, answer: impl FnMut(u32, &mut Vec<u8>) + 'a) -> Self {
        Self { inner, command: Box::new(|_, _| None), answer: Box::new(answer) }
    }
}

impl Transport for Between<'_> {
    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let mut frame = command.to_vec();
        if let Some(answer) = (self.command)(&mut self.inner, &mut frame) {
            return Ok(answer);
        }
        let mut answer = self.inner.transact(&frame)?;
        (self.answer)(code(command), &mut answer);
        Ok(answer)
    }
}

/// The command code of a frame.
pub fn code(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[6..10].try_into().unwrap())
}

/// Extends a PCR beside us.
pub fn extend(transport: &mut Socket<UnixStream>, pcr: u32) {
    let mut frame = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82];
    frame.extend(pcr.to_be_bytes());
    frame.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b]);
    frame.extend([0xaa; 32]);
    assert_eq!(transport.transact(&frame).unwrap()[6..10], [0; 4]);
}
