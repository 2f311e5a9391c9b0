//! The command line.

use ashlar_lock::{Etcd, EtcdOptions, Group, HolderId, Lock};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The exit codes for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done · 1 the semaphore says no · 2 an argument is wrong · 3 etcd, or the update engine, does not answer · \
     4 etcd refuses, or what is stored is damaged · 6 a file cannot be read or written";

/// Largest file with certificates, keys or a password in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Shows and changes the reboot lock of a group of machines, which is kept in etcd.
#[derive(Debug, Parser)]
#[command(name = "lockctl", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which etcd, and which group.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "etcd")]
pub(crate) struct Place {
    /// A member's address; given again, or with commas, several
    #[arg(
        long,
        global = true,
        env = "LOCKCTL_ENDPOINT",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379",
        value_name = "URL"
    )]
    endpoint: Vec<String>,
    /// Authorities that sign the members' certificates, in PEM
    #[arg(long, global = true, env = "LOCKCTL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client's certificate, in PEM
    #[arg(long, global = true, env = "LOCKCTL_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, global = true, env = "LOCKCTL_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name that etcd knows the client by
    #[arg(long, global = true, env = "LOCKCTL_USER", value_name = "NAME")]
    user: Option<String>,
    /// File with the password of `--user`
    #[arg(long, global = true, env = "LOCKCTL_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The group of machines
    #[arg(long, global = true, env = "LOCKCTL_GROUP", default_value = "default", value_name = "NAME")]
    pub(crate) group: Group,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how many machines may be down, and which are
    Status {
        /// Show since when, why, and which release
        #[arg(long)]
        wide: bool,
    },
    /// Take a place, for this machine or another
    Lock {
        /// Its machine ID; this machine's without
        id: Option<HolderId>,
        /// Why, for others to read
        #[arg(long, default_value = "by hand", value_name = "TEXT")]
        reason: String,
        /// Wait for a place for at most so many seconds
        #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=604_800))]
        wait: u64,
    },
    /// Give a place back, of this machine or another
    Unlock {
        /// Its machine ID; this machine's without
        id: Option<HolderId>,
    },
    /// Set how many machines may be down at once
    SetMax {
        /// The number; at least 1
        max: u32,
    },
    /// Set what becomes of the place of a machine that is gone
    SetStale {
        /// How long it may be silent, in seconds: 60 to 2592000; or `never`
        after: After,
        /// The next machine that wants a place frees it; without, `status` tells, and `unlock` frees it
        #[arg(long)]
        automatic: bool,
    },
    /// Set when a release is stopped that fails on too many machines
    SetGate {
        /// The share of machines that may fail, 0 to 1; or `off`
        share: Share,
        /// Not before so many machines have tried it
        #[arg(long, default_value_t = 5, value_name = "NUMBER")]
        at_least: u32,
    },
    /// Let a release go on that was stopped
    Resume {
        /// The release; all without
        release: Option<String>,
    },
    /// Show what happened to the lock
    History {
        /// The last so many events only
        #[arg(long, default_value_t = 50, value_name = "NUMBER")]
        count: usize,
    },
    /// Restart this machine once it has a place; its update engine does it
    Reboot {
        /// Why, for others to read
        #[arg(long, default_value = "by hand", value_name = "TEXT")]
        reason: String,
    },
    /// Serve the lock to machines that speak FleetLock, such as those of Fedora CoreOS
    Serve(Serve),
    /// Print shell completions
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        directory: PathBuf,
    },
}

/// Where FleetLock is served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Certificate (chain) of the server, in PEM
    #[arg(long, requires = "tls_key", required_unless_present = "plain", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Only clients with a certificate of these authorities, in PEM
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Serve without encryption, for example behind a proxy
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) plain: bool,
    /// Where to serve metrics (OpenMetrics, `/metrics`)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// Seconds, or never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct After(pub(crate) Option<u32>);

impl std::str::FromStr for After {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Self(None));
        }
        let seconds = text.parse().ok().filter(|seconds| (60..=2_592_000).contains(seconds));
        seconds.map(|seconds| Self(Some(seconds))).ok_or("60 to 2592000 seconds, or `never`")
    }
}

/// A share, or off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share(pub(crate) Option<f64>);

impl std::str::FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let share = text.parse().ok().filter(|share: &f64| (0.0..1.0).contains(share));
        share.map(|share| Self(Some(share))).ok_or("0 to less than 1, for example 0.1; or `off`")
    }
}

/// Why the command ends.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Problem {
    pub(crate) const ARGUMENT: u8 = 2;
    pub(crate) const FILE: u8 = 6;

    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// A file, of at most [`MAX_FILE`] bytes.
pub(crate) fn read(path: &Path) -> Result<String, Problem> {
    let fail =
        |why: String| Problem::new(Problem::FILE, format!("`{}` cannot be read: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > MAX_FILE {
        return Err(fail(format!("it has {length} bytes; {MAX_FILE} are allowed")));
    }
    std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}

impl Place {
    fn options(&self) -> Result<EtcdOptions, Problem> {
        let wrong = |text: &str| Problem::new(Problem::ARGUMENT, text);
        let file = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        let identity = match (file(&self.cert)?, file(&self.key)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(wrong("--cert and --key belong together")),
        };
        let user = match (&self.user, file(&self.password_file)?) {
            (Some(user), Some(password)) => {
                Some((user.clone(), password.trim_end_matches(['\n', '\r']).to_owned()))
            }
            (None, None) => None,
            _ => return Err(wrong("--user and --password-file belong together")),
        };
        Ok(EtcdOptions { endpoints: self.endpoint.clone(), ca: file(&self.ca)?, identity, user })
    }

    /// The group's lock.
    pub(crate) fn lock(&self) -> Result<Lock<Etcd>, Problem> {
        let etcd = Etcd::new(self.options()?).map_err(|text| Problem::new(Problem::ARGUMENT, text))?;
        Ok(Lock::new(etcd, self.group.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn values() {
        assert_eq!("never".parse::<After>().unwrap().0, None);
        assert_eq!("60".parse::<After>().unwrap().0, Some(60));
        assert!("59".parse::<After>().is_err() && "1h".parse::<After>().is_err());
        assert_eq!("off".parse::<Share>().unwrap().0, None);
        assert_eq!("0.25".parse::<Share>().unwrap().0, Some(0.25));
        assert!(
            "1".parse::<Share>().is_err()
                && "-0.1".parse::<Share>().is_err()
                && "NaN".parse::<Share>().is_err()
        );
    }
}
