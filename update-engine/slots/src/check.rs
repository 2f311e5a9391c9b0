//! Judging a release on the slot before it may start: as the firmware will, and as the TPM will.

use crate::error::SlotsError;
use ashlar_image::digest::Digest;
use ashlar_image::state::{POLICY_PCRS, policy_ref};
use ashlar_keys::authenticode;
use ashlar_measured_boot::authenticode::digest;
use ashlar_measured_boot::efi::{Guid, SignatureList, parse_signature_lists};
use ashlar_measured_boot::predict::{AFTER_ENTER_INITRD, pcr11};
use ashlar_measured_boot::uki::Uki;
use ashlar_tpm::PcrSignatures;
use ashlar_tpm::key::PcrKey;
use ashlar_tpm::policy::PcrValues;
use std::io::{Read, Seek};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

/// Longest UKI in bytes.
const MAX_UKI: u64 = 512 << 20;
/// The UKI's path on the ESP.
pub const UKI_PATH: &str = "EFI/BOOT/BOOTX64.EFI";

/// Takes the UKI out of a slot's FAT.
pub fn read_uki(esp: impl Read + std::io::Write + Seek) -> Result<Vec<u8>, SlotsError> {
    let fail = |error: std::io::Error| SlotsError::NoUki(error.to_string());
    let volume =
        fatfs::FileSystem::new(esp, fatfs::FsOptions::new().update_accessed_date(false)).map_err(fail)?;
    let mut file = volume.root_dir().open_file(UKI_PATH).map_err(fail)?;
    let mut uki = Vec::new();
    (&mut file).take(MAX_UKI + 1).read_to_end(&mut uki).map_err(fail)?;
    if uki.len() as u64 > MAX_UKI {
        return Err(SlotsError::NoUki(format!("it is longer than {MAX_UKI} bytes")));
    }
    Ok(uki)
}

/// The firmware's databases: contents of `db` and `dbx`, empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Databases {
    /// What may start.
    pub db: Vec<u8>,
    /// What may not, whatever db says.
    pub dbx: Vec<u8>,
}

/// Whether firmware with these databases and Secure Boot on starts a program (UEFI Specification 2.10, section 32.5.3.3). A
/// program counts as signed when the certificate itself is in db that it was signed with: firmware also takes one that an authority in db
/// has issued, and a release signed that way is refused here.
///
/// # Errors
/// Why it does not.
pub fn starts(program: &[u8], databases: &Databases) -> Result<(), SlotsError> {
    let refuse = |reason: String| SlotsError::Firmware(reason);
    let lists = |name: &str, bytes: &[u8]| {
        parse_signature_lists(bytes)
            .map_err(|error| refuse(format!("its {name} cannot be understood: {error}")))
    };
    let (db, dbx) = (lists("db", &databases.db)?, lists("dbx", &databases.dbx)?);
    let hash = digest(program).map_err(|error| refuse(format!("the UKI is no EFI program: {error}")))?;
    let has = |lists: &[SignatureList], kind: Guid, data: &[u8]| {
        lists
            .iter()
            .filter(|list| list.signature_type == kind)
            .flat_map(|list| &list.signatures)
            .any(|s| s.data == data)
    };
    if has(&dbx, Guid::CERT_SHA256, &hash.0) {
        return Err(refuse(format!("its hash {hash} is in dbx: it was revoked")));
    }
    let certificates = |lists: &'_ [SignatureList]| -> Vec<Vec<u8>> {
        let lists = lists.iter().filter(|list| list.signature_type == Guid::CERT_X509);
        lists.flat_map(|list| &list.signatures).map(|signature| signature.data.clone()).collect()
    };
    // One revoked signature is enough, whatever else is good: the firmware ends there.
    let revoked = || refuse("the certificate that it is signed with is in dbx: it was revoked".into());
    if certificates(&dbx).iter().any(|certificate| authenticode::verify(program, certificate).is_ok()) {
        return Err(revoked());
    }
    let mut last = "it is not signed with a key in db".to_owned();
    let mut signed = false;
    for certificate in certificates(&db) {
        match authenticode::verify(program, &certificate) {
            // A revocation may also name the hash of what the certificate's issuer has signed.
            Ok(()) if tbs_hash(&certificate).is_some_and(|hash| begins_with(&dbx, &hash)) => {
                return Err(revoked());
            }
            Ok(()) => signed = true,
            Err(error) => last = format!("its signature: {error}"),
        }
    }
    if signed {
        return Ok(());
    }
    if has(&db, Guid::CERT_SHA256, &hash.0) {
        return Ok(());
    }
    Err(refuse(last))
}

/// Whether dbx names this hash of a certificate (`EFI_CERT_X509_SHA256`: the hash, then a time, which is not looked at).
fn begins_with(dbx: &[SignatureList], hash: &Digest) -> bool {
    let lists = dbx.iter().filter(|list| list.signature_type == Guid::CERT_X509_SHA256);
    lists.flat_map(|list| &list.signatures).any(|entry| entry.data.get(..32) == Some(&hash.0))
}

fn tbs_hash(der: &[u8]) -> Option<Digest> {
    let certificate = Certificate::from_der(der).ok()?;
    certificate.tbs_certificate().to_der().ok().map(Digest::of)
}

/// What the TPM will look at when the state volume is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// PCR 7 now; it stays while the firmware's variables stay.
    pub pcr7: Digest,
    /// The rollback floor: the generation that the volume's key is sealed for.
    pub floor: u64,
    /// The owner's PCR key in PEM, as the release that runs has it.
    pub key: Vec<u8>,
}

/// Whether a release opens the state volume of this machine: its UKI must carry the owner's signature over the PCRs that
/// this machine will have.
///
/// # Errors
/// Why the volume stays closed.
pub fn opens(uki: &[u8], sealing: &Sealing) -> Result<(), SlotsError> {
    let refuse = |reason: String| SlotsError::State(reason);
    let uki = Uki::parse(uki).map_err(|error| refuse(format!("the UKI cannot be read: {error}")))?;
    let section = |name: &str| uki.section(name).map(trim);
    let key = section(".pcrpkey").ok_or_else(|| refuse("it carries no PCR key".into()))?;
    let key = PcrKey::from_pem(key).map_err(|error| refuse(format!("its PCR key: {error}")))?;
    let own =
        PcrKey::from_pem(&sealing.key).map_err(|error| refuse(format!("this machine's PCR key: {error}")))?;
    if key.fingerprint() != own.fingerprint() {
        return Err(refuse(
            "it is signed with another PCR key; the recovery key would open the volume".into(),
        ));
    }
    let signatures = section(".pcrsig").ok_or_else(|| refuse("it carries no signed policy".into()))?;
    let signatures =
        PcrSignatures::parse(signatures).map_err(|error| refuse(format!("its signed policy: {error}")))?;
    let phases = pcr11(&uki).map_err(|error| refuse(format!("its PCR 11 cannot be predicted: {error}")))?;
    let entered = phases.iter().find(|variant| variant.name == AFTER_ENTER_INITRD);
    let entered = entered.ok_or_else(|| refuse("its PCR 11 has no value for the initrd".into()))?;
    let zero = Digest::ZERO;
    let values = POLICY_PCRS.map(|pcr| {
        let value = match pcr {
            7 => sealing.pcr7,
            11 => entered.value,
            _ => zero,
        };
        (pcr, value.0)
    });
    let values = PcrValues::new(values).map_err(|error| refuse(error.to_string()))?;
    let generation = policy_ref(sealing.floor);
    if !signatures.covers(&key, &values, Some(&generation.0)) {
        return Err(refuse(format!(
            "it signs for no machine of security version {}: install a release between first",
            sealing.floor
        )));
    }
    if signatures.find(&key, &values, Some(&generation.0)).is_none() {
        return Err(refuse(format!(
            "it does not sign for this machine's PCR 7 ({}): sign it for this firmware's keys, or use the recovery key",
            sealing.pcr7
        )));
    }
    Ok(())
}

/// Without the zeros that fill a section up.
fn trim(section: &[u8]) -> &[u8] {
    let end = section.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    section.get(..end).unwrap_or_default()
}
