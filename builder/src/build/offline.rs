//! Signing elsewhere: a build without signatures, signing it where the keys are, and finishing it.

use super::parts::Parts;
use super::uki::{self, UkiSigners};
use super::{Assembly, Built, Options, OutputKind, SecureBoot, assemble, prepare, root, write};
use crate::error::BuildError;
use crate::output::Output;
use crate::progress::Progresses;
use crate::timings::Timings;
use ashlar_image::digest::Digest;
use ashlar_keys::offline::{About, Recorder, SignatureSet, SigningRequest};
use ashlar_keys::{KeyError, KeyFolder, Role};
use std::collections::BTreeSet;
use std::path::Path;

/// Builds all but what needs a key, for signing elsewhere. Only public halves of keys are read.
pub fn build_unsigned(
    options: &Options,
    keys: &KeyFolder,
    target: &Path,
    progress: &dyn Progresses,
) -> Result<Built, BuildError> {
    let timings = Timings::start();
    let secure_boot = SecureBoot::from_keys(keys)?;
    let output = Output::begin(target)?;
    let prepared = prepare(options, &output, &timings, progress)?;
    prepared.signable()?;
    prepared.parts.save(&output)?;
    assemble::enrolment(&output, &secure_boot)?;
    public_halves(keys, &output)?;
    let lock_written = prepared.save_lock()?;
    output.finish()?;
    Ok(Built {
        release: None,
        timings: timings.report(),
        lock_written,
        notes: prepared.notes,
        lint: Some(prepared.lint),
    })
}

/// Folder of an unsigned release with the public halves of its keys.
pub const KEYS_DIR: &str = "keys";

/// Puts the public halves of all keys beside an unsigned release: what finishes it later must be the same owner's.
fn public_halves(keys: &KeyFolder, output: &Output) -> Result<(), BuildError> {
    let folder = output.path(KEYS_DIR);
    std::fs::create_dir(&folder).map_err(|e| BuildError::io("create", &folder, e))?;
    let fail = |e| BuildError::input("read the key folder", keys.path(), e);
    for entry in std::fs::read_dir(keys.path()).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        if [".crt", ".pub", ".esl", ".auth", ".guid"].iter().any(|ending| name.ends_with(ending)) {
            let bytes = std::fs::read(keys.path().join(&name)).map_err(fail)?;
            write(output, &format!("{KEYS_DIR}/{name}"), &bytes)?;
        }
    }
    Ok(())
}

/// What [`sign`] has come to.
#[derive(Debug)]
pub struct Signed {
    /// What was asked for and has no signature yet.
    pub request: SigningRequest,
    /// The signatures, older ones included.
    pub answers: SignatureSet,
    /// What was signed, when nothing is missing: for the person whose keys they are.
    pub summary: Option<SignedSummary>,
}

/// What the signatures of a release are about.
#[derive(Debug, Clone, Copy)]
pub struct SignedSummary {
    /// Authenticode SHA-256 of the UKI: what the db key has signed.
    pub authenticode: Digest,
    /// PCR 11 in which the state volume opens: what the pcr key has signed.
    pub pcr11: Digest,
}

/// Signs the unsigned release in `folder` with those keys of `roles`, where `answers` do not have the signature already.
pub fn sign(
    folder: &Path,
    keys: &KeyFolder,
    roles: &[Role],
    answers: SignatureSet,
) -> Result<Signed, BuildError> {
    let parts = Parts::load(folder)?;
    // They may have stayed at home; then `attach` sees whose signatures these are.
    let wanted = folder.join(KEYS_DIR);
    let mut secure_boot = SecureBoot::from_keys(keys)?;
    if wanted.exists() {
        let wanted = KeyFolder::open(&wanted)?;
        for role in Role::BUILD {
            if wanted.fingerprint(role)? != keys.fingerprint(role)? {
                return Err(BuildError::OtherKeys { role: role.to_string(), keys: keys.path().to_owned() });
            }
        }
        // What is in db beside the key is the build host's word.
        secure_boot = SecureBoot::from_keys(&wanted)?;
    }
    let recorder = Recorder::new(answers);
    let recording = keys.answering(&recorder, roles)?;
    let signers = UkiSigners { db: recording.db(), pcr: recording.pcr(), verify: true };
    let summary = match uki::sign(&parts, signers, &secure_boot) {
        Ok(signed) => Some(uki::summary(&signed)?),
        Err(BuildError::Keys(KeyError::Unanswered(_))) => None,
        Err(error) => return Err(error),
    };
    let about = About {
        image_id: parts.facts.image_id.clone(),
        image_version: parts.facts.image_version.clone(),
        root_hash: Some(parts.facts.root_hash),
        cmdline: Some(parts.facts.cmdline.clone()),
    };
    Ok(Signed { request: recorder.request(about), answers: recorder.answers(), summary })
}

/// Makes a release from an unsigned one and its signatures: the same bytes as if it had been signed at once.
pub fn attach(
    folder: &Path,
    answers: SignatureSet,
    target: &Path,
    outputs: &BTreeSet<OutputKind>,
    jobs: usize,
) -> Result<Built, BuildError> {
    let timings = Timings::start();
    let parts = Parts::load(folder)?;
    let keys = KeyFolder::open(&folder.join(KEYS_DIR))?.replaying(answers)?;
    let secure_boot = SecureBoot::from_keys(&keys)?;
    let output = Output::begin(target)?;
    let copy = |name: &str| {
        let (from, to) = (folder.join(name), output.path(name));
        crate::output::copy(&from, &to).map(|()| (from, to))
    };
    copy(root::REPORT_FILE)?;
    for artifact in [&parts.facts.root, &parts.facts.verity] {
        let (from, to) = copy(&artifact.file)?;
        let (sha256, size) = crate::output::digest(&to)?;
        if (sha256, size) != (artifact.sha256, artifact.size) {
            let why = format!("`{}` is not the file that it describes", artifact.file);
            return Err(BuildError::NotUnsigned { path: from, why });
        }
    }
    let signers = UkiSigners { db: keys.db(), pcr: keys.pcr(), verify: true };
    let release =
        assemble(&parts, &output, signers, &secure_boot, Assembly { outputs, jobs, timings: &timings })?;
    output.finish()?;
    Ok(Built {
        release: Some(release),
        timings: timings.report(),
        lock_written: None,
        notes: Vec::new(),
        lint: None,
    })
}
