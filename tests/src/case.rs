//! A folder of its own for a test: the example's recipe, changed, with whatever lies beside it.

use crate::folders;
use crate::programs::{Run, ashlar};
use crate::release::{Built, shared};
use crate::tools;
use ashlar_image::digest::Digest;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Name of the recipe in the folder.
pub const RECIPE: &str = "recipe.toml";

/// The folder; gone with this value.
#[derive(Debug)]
pub struct Case {
    folder: TempDir,
    /// The cache that its builds use: the one of all tests, unless it is its own.
    pub cache: PathBuf,
    /// The keys that it builds with.
    pub keys: PathBuf,
}

impl Case {
    /// With the recipe and the lock file of `built`.
    pub fn of(built: &Built) -> Self {
        let folder = tempfile::tempdir_in(shared()).unwrap();
        std::fs::copy(&built.recipe, folder.path().join(RECIPE)).unwrap();
        std::fs::copy(&built.lock, folder.path().join("recipe.lock")).unwrap();
        Self { folder, cache: built.cache.clone(), keys: built.keys.clone() }
    }

    /// With a copy of the cache, to be damaged, without any kept stage.
    #[must_use]
    pub fn with_own_cache(mut self) -> Self {
        let own = self.path("cache");
        for room in ["debs", "unpacked", "index", "blobs"] {
            folders::copy(&self.cache.join(room), &own.join(room));
        }
        self.cache = own;
        self
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Replaces a text that the recipe has once.
    pub fn edit(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.path(RECIPE)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "`{old}` is not in the recipe once");
        self.write(RECIPE, text.replace(old, new));
    }

    /// Adds to the end of the recipe.
    pub fn add(&self, text: &str) {
        let old = std::fs::read_to_string(self.path(RECIPE)).unwrap();
        self.write(RECIPE, format!("{old}\n{text}"));
    }

    /// The program in this folder, with this cache.
    pub fn ashlar(&self, arguments: &[&str]) -> Command {
        let mut command = ashlar();
        command.args(arguments).current_dir(self.folder.path()).env("ASHLAR_CACHE", &self.cache);
        command
    }

    /// The command that builds the recipe into `out`.
    pub fn build_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ashlar(&["build", RECIPE, "-o", "out", "--keys"]);
        command.arg(&self.keys).args(arguments);
        command
    }

    /// Builds the recipe into `out` without the network.
    pub fn build(&self, arguments: &[&str]) -> Run {
        Run::of(self.build_command(&["--offline"]).args(arguments))
    }

    /// The folder that builds go into.
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Forgets all kept stages.
    pub fn forget_stages(&self) {
        let stages = self.cache.join("stages");
        if stages.exists() {
            std::fs::remove_dir_all(stages).unwrap();
        }
    }

    /// Unpacks the root in `out` with `fsck.erofs`; none, with the reason said, when it is not installed.
    pub fn unpack_root(&self) -> Option<PathBuf> {
        let tree = self.path("tree");
        if tree.exists() {
            std::fs::remove_dir_all(&tree).unwrap();
        }
        let mut fsck = tools::judge("fsck.erofs", "erofs-utils")?;
        let extract = format!("--extract={}", tree.display());
        // An ordinary user can set modes, but not owners: those are [`Case::owner`]'s business.
        fsck.arg(extract).args(["--no-preserve-owner", "--preserve-perms"]).arg(self.path("out/root.erofs"));
        let _ = Run::of(&mut fsck).ok();
        Some(tree)
    }

    /// What `dump.erofs` says of a path of the root in `out`: user and group.
    pub fn owner(&self, path: &str) -> (u32, u32) {
        let mut dump = tools::judge("dump.erofs", "erofs-utils").unwrap();
        let run = Run::of(dump.arg(format!("--path={path}")).arg(self.path("out/root.erofs"))).ok();
        // "Uid: 0   Gid: 0  Access: 0644/rw-r--r--"
        let words: Vec<&str> = run.stdout.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {run}"))
        };
        (after("Uid:"), after("Gid:"))
    }

    /// A mirror in this folder that has the packages of the lock and the signed index, from the shared cache. Its URL.
    pub fn mirror(&self, built: &Built) -> String {
        let lock = std::fs::read_to_string(&built.lock).unwrap();
        let mirror = self.path("mirror");
        let link = |from: &Path, to: &str| {
            let to = mirror.join(to);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            if !to.exists() {
                std::os::unix::fs::symlink(from, to).unwrap();
            }
        };
        let value = |line: &str, key: &str| -> Option<String> {
            Some(line.strip_prefix(key)?.trim_start_matches([' ', '=']).trim_matches('"').to_owned())
        };
        let mut sha256 = None;
        for line in lock.lines() {
            sha256 = value(line, "sha256").or(sha256);
            if let (Some(path), Some(sha256)) = (value(line, "path"), &sha256) {
                let deb = built.cache.join("debs").join(format!("{sha256}.deb"));
                assert!(deb.is_file(), "{} is not in the cache", deb.display());
                link(&deb, &path);
            }
        }
        let mut index = None;
        for entry in std::fs::read_dir(built.cache.join("index")).unwrap() {
            let file = entry.unwrap().path();
            let bytes = std::fs::read(&file).unwrap();
            if bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
                link(&file, "dists/trixie/InRelease");
                index = Some(String::from_utf8(bytes).unwrap());
            }
        }
        // The list of packages lies in the cache under its hash, which the index tells.
        let index = index.expect("no signed index in the cache");
        let list = "main/binary-amd64/Packages";
        let line = index.lines().find(|line| line.ends_with(list) && line.len() > 80).unwrap();
        let hash: Digest = line.split_whitespace().next().unwrap().parse().unwrap();
        link(&built.cache.join("index").join(hash.to_string()), &format!("dists/trixie/{list}"));
        format!("file://{}", mirror.display())
    }
}
