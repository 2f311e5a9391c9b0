//! From parts and keys to a release: UKI, EFI system partition, disk, prediction, bills of materials, `release.json`.

use super::outputs::{self, OutputKind};
use super::parts::{Facts, Parts, ROOT_FILE, VERITY_FILE};
use super::secure_boot::SecureBoot;
use super::uki::{self, UkiSigners};
use super::{disk, materials, write};
use crate::error::BuildError;
use crate::graph::Graph;
use crate::identity::Identity;
use crate::output::{Output, RELEASE_FILE};
use crate::timings::Timings;
use ashlar_image::digest::Digest;
use ashlar_image::owner::OWNER_FILE;
use ashlar_image::release::{self, Artifact, Release, StatePolicy};
use ashlar_measured_boot::predict::{self, Site};
use std::collections::BTreeSet;

/// Name of the signed UKI in a release's folder.
pub const UKI_FILE: &str = "uki.efi";
/// Folder of a release with what the owner enrols in a machine's firmware.
pub const SECURE_BOOT_DIR: &str = "secure-boot";

/// In what form, with how many threads, and where the time is written down.
#[derive(Debug, Clone, Copy)]
pub struct Assembly<'a> {
    /// The forms.
    pub outputs: &'a BTreeSet<OutputKind>,
    /// How many stages may run at once.
    pub jobs: usize,
    /// The time.
    pub timings: &'a Timings,
}

/// Signs and completes what lies in `output`.
pub fn assemble(
    parts: &Parts,
    output: &Output,
    signers: UkiSigners<'_>,
    secure_boot: &SecureBoot,
    assembly: Assembly<'_>,
) -> Result<Release, BuildError> {
    let Assembly { outputs, jobs, timings } = assembly;
    let facts = &parts.facts;
    let identity = &Identity::new(&facts.image_id);
    let mut graph = Graph::default();
    let signed = graph.stage("uki", &[], move |_| {
        let signed = uki::sign(parts, signers, secure_boot)?;
        write(output, UKI_FILE, &signed)?;
        Ok(signed)
    });
    let esp = graph.stage("esp", &[signed.id()], move |results| {
        disk::esp(output, results.get::<Vec<u8>>(signed), identity, &facts.partition_sizes, facts.build_time)
    });
    let disk = graph.stage("disk", &[esp.id()], move |results| {
        if outputs::need_disk(outputs) {
            disk::disk(output, results.get(esp), identity, facts)?;
        }
        disk::size(identity, facts)
    });
    let keys = graph.stage("keys", &[], move |_| enrolment(output, secure_boot));
    let predicted = graph.stage("predict", &[signed.id()], move |results| {
        let site = Site { variables: &secure_boot.variables, authority: &secure_boot.db_authority };
        let bytes = results.get(signed);
        let artifact =
            Artifact { file: UKI_FILE.to_owned(), size: bytes.len() as u64, sha256: Digest::of(bytes) };
        Ok((uki::describe(bytes, artifact)?, predict::predict(bytes, &site)?))
    });
    let release = graph.stage("release", &[esp.id(), predicted.id(), disk.id(), keys.id()], move |results| {
        let (uki, pcrs) = results.get(predicted).clone();
        let policy = uki::state_policy(parts, secure_boot)?;
        let release = release(facts, results.get(esp).clone(), uki, pcrs, policy, *results.get(disk));
        let mut json = serde_json::to_vec_pretty(&release)?;
        json.push(b'\n');
        write(output, RELEASE_FILE, &json)?;
        for (name, bytes) in materials::documents(&facts.materials, &release, &json)? {
            write(output, name, &bytes)?;
        }
        Ok(release)
    });
    let mut wanted = vec![release.id()];
    for (kind, name) in outputs.iter().filter_map(|kind| Some((kind, kind.made_file()?))) {
        let needs = [disk.id(), release.id()];
        let form =
            graph.stage(name, &needs, move |_| outputs::write(output, *kind, identity, facts.build_time));
        wanted.push(form.id());
    }
    let results = graph.run(&wanted, jobs, timings)?;
    if outputs::need_disk(outputs) && !outputs.contains(&OutputKind::Raw) {
        let raw = output.path(disk::DISK_FILE);
        std::fs::remove_file(&raw).map_err(|e| BuildError::io("remove", &raw, e))?;
    }
    Ok(results.get(release).clone())
}

/// What the firmware must know to start this release, beside the release.
pub(super) fn enrolment(output: &Output, secure_boot: &SecureBoot) -> Result<(), BuildError> {
    let mut owner = serde_json::to_vec_pretty(&secure_boot.owner)?;
    owner.push(b'\n');
    write(output, OWNER_FILE, &owner)?;
    let directory = output.path(SECURE_BOOT_DIR);
    if !directory.exists() {
        std::fs::create_dir(&directory).map_err(|e| BuildError::io("create", &directory, e))?;
    }
    for (name, bytes) in &secure_boot.files {
        write(output, &format!("{SECURE_BOOT_DIR}/{name}"), bytes)?;
    }
    Ok(())
}

/// Puts what is known of the release together.
fn release(
    facts: &Facts,
    esp: Artifact,
    uki: release::Uki,
    pcrs: ashlar_image::measure::Prediction,
    state_policy: StatePolicy,
    disk_size: u64,
) -> Release {
    debug_assert_eq!((facts.root.file.as_str(), facts.verity.file.as_str()), (ROOT_FILE, VERITY_FILE));
    Release {
        format: release::FORMAT,
        image_id: facts.image_id.clone(),
        image_version: facts.image_version.clone(),
        architecture: Some(release::ARCHITECTURE.to_owned()),
        security_version: facts.security_version,
        build_time: facts.build_time,
        kernel: facts.kernel.clone(),
        partition_sizes: facts.partition_sizes,
        slot: release::SlotArtifacts { esp, root: facts.root.clone(), verity: facts.verity.clone() },
        disk: release::DiskImage { file: disk::DISK_FILE.to_owned(), size: disk_size },
        root_hash: facts.root_hash,
        uki,
        pcrs,
        state_policy: Some(state_policy),
        init: facts.init,
        control: Some(facts.control),
        update: Some(facts.update),
        hardening: facts.hardening.clone(),
        packages: facts.packages.clone(),
    }
}
