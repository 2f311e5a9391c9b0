//! Building a release again and comparing.

use super::recorded::RecordedSigners;
use super::{
    Assembly, Options, OutputKind, SecureBoot, UKI_FILE, UkiSigners, assemble, prepare, temporary_folder,
};
use crate::error::BuildError;
use crate::inspect::read_whole;
use crate::output::Output;
use crate::progress::Progresses;
use crate::timings::Timings;
use ashlar_compare::{ReleaseFolder, Verdict};
use std::path::Path;

/// Largest UKI, in bytes.
const MAX_UKI: u64 = 1 << 30;

/// Builds `options` again in a temporary folder and compares the result with `release`, byte for byte. No key is needed:
/// the release's own signatures are taken where they fit what was built, and they fit nothing else.
pub fn verify(options: &Options, release: &Path, progress: &dyn Progresses) -> Result<Verdict, BuildError> {
    let timings = Timings::start();
    let secure_boot = SecureBoot::from_release(release)?;
    let uki = read_whole(&release.join(UKI_FILE), MAX_UKI, "a UKI")?;
    let signers = RecordedSigners::new(&uki, &secure_boot)?;
    let parent = temporary_folder()?;
    let output = Output::begin(&parent.path().join("again"))?;
    let prepared = prepare(options, &output, &timings, progress)?;
    let pair = UkiSigners { db: &signers.db, pcr: signers.pcr.as_ref(), verify: false };
    let outputs = OutputKind::of_release(release);
    let assembly = Assembly { outputs: &outputs, ..options.assembly(&timings) };
    assemble(&prepared.parts, &output, pair, &secure_boot, assembly)?;
    let again = ReleaseFolder::open(output.folder())?;
    Ok(ashlar_compare::same(&ReleaseFolder::open(release)?, &again)?)
}
