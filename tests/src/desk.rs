//! An operator's computer beside machines: keys, configurations, certificates, `ashlarctl`.

use crate::machine::UP;
use crate::programs::{self, Run};
use crate::release::Built;
use ashlar_image::control::Status;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An operator's computer: a folder with configurations, certificates and what `ashlarctl` has stored.
#[derive(Debug)]
pub struct Desk {
    folder: TempDir,
    /// The owner's keys.
    pub keys: PathBuf,
}

impl Desk {
    /// A desk of the owner of `built`.
    pub fn new(built: &Built) -> Self {
        let folder = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
        Self { folder, keys: built.keys.clone() }
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `ashlar`.
    pub fn ashlar(&self, arguments: &[&str]) -> Run {
        Run::of(programs::ashlar().args(arguments).current_dir(self.folder.path()))
    }

    /// Signs a configuration with the given keys into `NAME.dsse`.
    pub fn sign(&self, name: &str, text: &str, keys: &Path) -> PathBuf {
        fs::write(self.path(&format!("{name}.toml")), text).unwrap();
        let signed = format!("{name}.dsse");
        let _ = self
            .ashlar(&[
                "machine",
                "sign",
                &format!("{name}.toml"),
                "--keys",
                keys.to_str().unwrap(),
                "-o",
                &signed,
            ])
            .ok();
        self.path(&signed)
    }

    /// `ashlarctl` for this desk.
    pub fn ctl(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.ctl_command(arguments))
    }

    /// `ashlarctl` with this text on its standard input.
    pub fn ctl_with(&self, arguments: &[&str], input: &str) -> Run {
        Run::with_input(&mut self.ctl_command(arguments), input)
    }

    fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::folder().join("ashlarctl"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME");
        command
    }
}

impl Desk {
    /// Makes the authority of clients and a certificate for each role; gives the authority's certificate.
    pub fn certificates(&self) -> String {
        let _ = self.ctl(&["identity", "new-ca"]).ok();
        for role in ["reader", "operator", "admin"] {
            let _ = self.ctl(&["identity", "new", role, "--role", role]).ok();
        }
        fs::read_to_string(self.path(".config/ashlar/client-ca/client-ca.pem")).unwrap()
    }

    /// The machine's state as a reader sees it.
    pub fn status(&self, node: &str) -> Status {
        let run = self.ctl(&["--node", node, "--identity", "reader.pem", "--json", "status"]);
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
    }

    /// Asks until the control service answers; gives the fingerprint that it shows.
    pub fn fingerprint(&self, node: &str) -> String {
        let until = Instant::now() + UP;
        loop {
            let run = self.ctl(&["--node", node, "--identity", "admin.pem", "status"]);
            if run.code == Some(5) {
                // In two lines of four-digit groups.
                let groups = run
                    .stderr
                    .split_ascii_whitespace()
                    .filter(|word| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
                return groups.collect();
            }
            assert!(Instant::now() < until, "{run}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
