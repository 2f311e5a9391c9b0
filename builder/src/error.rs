//! Why a build fails, and its exit code.

use miette::Diagnostic;
use std::path::{Path, PathBuf};

/// Exit codes of `ashlar`, as documented in docs/reference.md.
pub mod exit {
    /// A recipe, an argument or an input file is wrong.
    pub const INPUT: u8 = 2;
    /// Packages cannot be had: the mirror, the archive's signature, a hash, a dependency.
    pub const PACKAGES: u8 = 3;
    /// Keys are missing or wrong.
    pub const KEYS: u8 = 4;
    /// The result cannot be written: disk full, folder in the way, too large for its partition.
    pub const OUTPUT: u8 = 5;
    /// A virtual machine did not start or did not come up.
    pub const MACHINE: u8 = 6;
    /// The lint has found an error, or two releases that should be the same are not.
    pub const FINDING: u8 = 7;
}

/// Why a build failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum BuildError {
    /// The recipe is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// A machine configuration is wrong, or cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    MachineConfig(#[from] crate::machine_config::MachineConfigError),
    /// A channel cannot be made or changed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Channel(#[from] crate::channel::ChannelError),
    /// Two parts of the image claim one path, or a path cannot be stored.
    #[error("cannot compose the root: {0}")]
    #[diagnostic(help("take one of the two out with `remove` or choose another path"))]
    Tree(#[from] ashlar_tree::TreeError),
    /// The output folder is somebody else's.
    #[error("`{}` exists and holds no release", .0.display())]
    #[diagnostic(help("choose another folder with `-o`, or empty this one"))]
    OutputInTheWay(PathBuf),
    /// A file that the user named, or that belongs to one, cannot be read.
    #[error("cannot {what} `{}`", path.display())]
    Input {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the result or of the cache cannot be read or written.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program of the image is not there.
    #[error("the program `{name}` was not found; looked at: {looked}")]
    #[diagnostic(help(
        "build it with `cargo xtask build`; with `--init FILE` both programs are looked for in that file's folder"
    ))]
    NoInit {
        /// Its name.
        name: &'static str,
        /// The places.
        looked: String,
    },
    /// A program cannot run in an image.
    #[error("`{}` cannot run in an image: {why}", path.display())]
    #[diagnostic(help("build it with `cargo xtask build`, which links it statically"))]
    BadInit {
        /// The program.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The owner's public keys beside a release cannot be understood.
    #[error("`{}` cannot be understood: {why}", path.display())]
    #[diagnostic(help("a release has this file since it has a state volume; build the release again"))]
    BadOwner {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A recovery key cannot be had.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Recovery(#[from] crate::recovery::RecoveryError),
    /// Packages cannot be had.
    #[error(transparent)]
    Packages(#[from] ashlar_debian::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] ashlar_cache::CacheError),
    /// Keys cannot be used.
    #[error(transparent)]
    Keys(#[from] ashlar_keys::KeyError),
    /// The root cannot be written.
    #[error(transparent)]
    Erofs(#[from] ashlar_formats::erofs::ErofsError),
    /// The verity tree cannot be written.
    #[error(transparent)]
    Verity(#[from] ashlar_formats::verity::VerityError),
    /// The EFI system partition cannot be written.
    #[error(transparent)]
    Esp(#[from] ashlar_formats::esp::EspError),
    /// The disk image cannot be written.
    #[error(transparent)]
    Disk(#[from] ashlar_formats::disk::DiskError),
    /// Kernel, stub or modules cannot be used.
    #[error(transparent)]
    Kernel(#[from] ashlar_boot::kernel::KernelError),
    /// A module is missing or cannot be read.
    #[error(transparent)]
    Modules(#[from] ashlar_boot::modules::ModuleError),
    /// The initramfs cannot be made.
    #[error(transparent)]
    Initramfs(#[from] ashlar_boot::initramfs::InitramfsError),
    /// The UKI cannot be made.
    #[error(transparent)]
    UkiWrite(#[from] ashlar_boot::uki::UkiError),
    /// The UKI cannot be read back.
    #[error(transparent)]
    UkiRead(#[from] ashlar_measured_boot::uki::UkiError),
    /// A program in the UKI cannot be read.
    #[error(transparent)]
    Pe(#[from] ashlar_measured_boot::pe::PeError),
    /// The prediction has no phase in which a secret may be released.
    #[error("PCR 11 has no value after `enter-initrd`; this is a fault of this program, please report it")]
    NoPhase,
    /// What the release measures cannot be predicted.
    #[error(transparent)]
    Predict(#[from] ashlar_measured_boot::predict::PredictError),
    /// A virtual machine failed.
    #[error(transparent)]
    Qemu(#[from] ashlar_qemu::QemuError),
    /// The report of a machine makes no sense.
    #[error("the machine's report cannot be used: {why}")]
    Report {
        /// What is wrong.
        why: String,
    },
    /// The user ended it.
    #[error("ended before the machine had reported")]
    Interrupted,
    /// A port of the machine did not answer.
    #[error("nothing answers at 127.0.0.1:{port}: {why}")]
    #[diagnostic(help("see the machine's console with `--console FILE`"))]
    NoAnswer {
        /// Port on this host.
        port: u16,
        /// The last error.
        why: String,
    },
    /// A page was asked for from a port that is not forwarded.
    #[error("port {0} of the machine is not forwarded")]
    #[diagnostic(help("add `--forward 0:{0}`"))]
    NotForwarded(u16),
    /// A file cannot be inspected.
    #[error(transparent)]
    Inspect(#[from] crate::inspect::InspectError),
    /// The lock file does not fit the recipe and `--locked` forbids to change it.
    #[error("`{}` does not fit the recipe: {why}", path.display())]
    #[diagnostic(help("build once without `--locked` to write it anew, and read what has changed"))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// The lock file cannot be read.
    #[error("`{}` is not a lock file: {why}", path.display())]
    #[diagnostic(help("delete it to have it written anew"))]
    BadLock {
        /// The lock file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file of the build host changed while the build read it.
    #[error("`{}` was changed during the build", .0.display())]
    #[diagnostic(help("build again when nothing writes to it any more"))]
    ChangedMeanwhile(PathBuf),
    /// The folder is no unsigned release.
    #[error("`{}` does not describe an unsigned release: {why}", path.display())]
    #[diagnostic(help("make one with `ashlar build --unsigned`, with the same version of this program"))]
    NotUnsigned {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What maintainer scripts would have done cannot be done.
    #[error(transparent)]
    Configure(#[from] ashlar_configure::ConfigureError),
    /// The lint has found what should not be signed.
    #[error("the lint has found {errors} error(s); nothing was signed\n\n{findings}")]
    #[diagnostic(help(
        "`ashlar lint --explain RULE` says more of each; what is meant to be so is allowed in the recipe, with the reason"
    ))]
    Lint {
        /// How many.
        errors: usize,
        /// The report.
        findings: String,
    },
    /// The disk cannot be written in another format.
    #[error(transparent)]
    Convert(#[from] ashlar_outputs::Error),
    /// Two releases cannot be compared.
    #[error(transparent)]
    Compare(#[from] ashlar_compare::CompareError),
    /// The lint cannot run.
    #[error(transparent)]
    Linter(#[from] ashlar_lint::LintError),
    /// A signature is missing from what is to be attached.
    #[error("the signature of the key `{0}` is missing")]
    #[diagnostic(help("sign with `ashlar sign` where that key is, and give the file to `ashlar attach`"))]
    Unsigned(String),
    /// The keys are not those that the release was built for.
    #[error("the key `{role}` in `{}` is not the one that this release was built for", keys.display())]
    #[diagnostic(help("sign with the keys whose public halves lie in the unsigned release's folder `keys`"))]
    OtherKeys {
        /// Whose key.
        role: String,
        /// The folder.
        keys: PathBuf,
    },
    /// A file that would be written is there already.
    #[error("`{}` exists and is left as it is", .0.display())]
    #[diagnostic(help("choose another name, or move it away"))]
    Exists(PathBuf),
    /// An image's user is none that its files know.
    #[error(
        "the image of the container `{container}` runs as the user `{user}`, which its /etc/passwd does not know"
    )]
    #[diagnostic(help("give `uid` and `gid` in the recipe"))]
    UnknownUser {
        /// The container.
        container: String,
        /// As its configuration says it.
        user: String,
    },
    /// A service's user or group is none that the root knows.
    #[error(
        "the service `{service}` runs as `{user}`, which the root's /etc/passwd and /etc/group do not know"
    )]
    #[diagnostic(help("add it with `[[user]]` or `[[group]]`, or give its number"))]
    UnknownServiceUser {
        /// The service.
        service: String,
        /// The user, with the group behind a colon if the recipe gives one.
        user: String,
    },
    /// Nothing can be asked on the terminal.
    #[error("cannot ask on the terminal: {0}")]
    Terminal(std::io::Error),
    /// A release lacks a signature or a key.
    #[error("the release is not signed as a release is: `{0}` is missing or cannot be read")]
    #[diagnostic(help("give the folder that `ashlar build` or `ashlar attach` has written"))]
    NotSigned(String),
    /// A bill of materials cannot be made.
    #[error(transparent)]
    Sbom(#[from] ashlar_sbom::SbomError),
    /// A part of the image is larger than its partition.
    #[error("the {part} needs {} but its partition has {}", crate::recipe::human(*needed), crate::recipe::human(*available))]
    #[diagnostic(help(
        "raise `partitions.{part}` in the recipe (a machine in the field keeps its sizes), or take something out"
    ))]
    TooLarge {
        /// esp, root or verity.
        part: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes of the partition.
        available: u64,
    },
    /// A directory, an archive or an image cannot be used.
    #[error(transparent)]
    Source(#[from] ashlar_sources::Error),
    /// A hash in the recipe is none.
    #[error("`{0}` is no SHA-256: write it as 64 hexadecimal digits")]
    BadDigest(String),
    /// A JSON file cannot be made.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl BuildError {
    /// An input or output error at `path`.
    pub fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// A file given to the program cannot be read.
    pub fn input(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Input { what, path: path.to_owned(), source }
    }

    /// The exit code of the `ashlar` program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Recipe(_)
            | Self::Source(_)
            | Self::BadDigest(_)
            | Self::Tree(_)
            | Self::NoInit { .. }
            | Self::BadInit { .. }
            | Self::BadOwner { .. }
            | Self::Recovery(_)
            | Self::Json(_)
            | Self::Inspect(_)
            | Self::Input { .. }
            | Self::NotForwarded(_)
            | Self::NoPhase
            | Self::ChangedMeanwhile(_)
            | Self::NotUnsigned { .. }
            | Self::NotSigned(_)
            | Self::UnknownUser { .. }
            | Self::UnknownServiceUser { .. }
            | Self::Configure(_)
            | Self::Linter(_)
            | Self::Compare(_)
            | Self::Sbom(_)
            | Self::Kernel(_)
            | Self::Modules(_)
            | Self::UkiWrite(_)
            | Self::UkiRead(_)
            | Self::Pe(_)
            | Self::Predict(_) => exit::INPUT,
            Self::Packages(_) | Self::Locked { .. } | Self::BadLock { .. } => exit::PACKAGES,
            Self::Lint { .. } => exit::FINDING,
            Self::MachineConfig(error) => error.exit_code(),
            Self::Channel(error) => error.exit_code(),
            Self::Keys(_) | Self::OtherKeys { .. } | Self::Unsigned(_) | Self::Terminal(_) => exit::KEYS,
            Self::Qemu(_) | Self::Report { .. } | Self::NoAnswer { .. } | Self::Interrupted => exit::MACHINE,
            Self::OutputInTheWay(_)
            | Self::Io { .. }
            | Self::Exists(_)
            | Self::Cache(_)
            | Self::Convert(_)
            | Self::TooLarge { .. }
            | Self::Erofs(_)
            | Self::Verity(_)
            | Self::Esp(_)
            | Self::Disk(_)
            | Self::Initramfs(_) => exit::OUTPUT,
        }
    }
}
