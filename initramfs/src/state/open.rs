//! Opening the volume in the first stage, or making it at the first start.

use super::choice::{self, Copy, Refusal};
use super::crypt;
use super::sealing::{self, SealedCopy, Signed};
use super::{How, StateBoot, escrow, fill_random, header, prompt};
use crate::block::Device;
use crate::console;
use crate::error::Error;
use crate::measure::Measurer;
use ashlar_image::digest::Digest;
use ashlar_image::owner::Owner;
use ashlar_image::state::{VOLUME_NAME, VOLUME_PCR};
use ashlar_state::{Filesystem, Found, Header, RecoveryKey, VolumeKey, luks, words};
use ashlar_tpm::Transport;
use std::fs::{File, OpenOptions};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the consoles are listened to when the TPM has refused.
const PROMPT_DEADLINE: Duration = Duration::from_secs(60);
/// How many wrong recovery keys are taken.
const TRIES: usize = 3;

/// What the first stage knows when it opens the volume.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The state partition.
    pub device: &'a Device,
    /// Whether the firmware enforces Secure Boot.
    pub secure_boot: bool,
    /// The release's number.
    pub security_version: u64,
    /// The owner.
    pub owner: &'a Owner,
    /// Whether the consoles are asked for the recovery key when the TPM refuses. The trial of a release does not wait for
    /// anybody: the old one opens the volume.
    pub asks: bool,
}

/// The volume's key and the header that goes with it.
struct Unlocked {
    header: Header,
    key: VolumeKey,
    how: How,
}

/// Opens or makes the volume, maps it and measures its key. Nothing of its content was read.
pub fn open<T: Transport>(start: &Start<'_>, measurer: &mut Measurer<T>) -> Result<StateBoot, Error> {
    let path = &start.device.path;
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))?;
    let signed = Signed::read()?;
    let unlocked = match luks::read(&file) {
        Ok(Found::Blank | Found::Unfinished | Found::Seed(_)) => make(start, &signed, measurer, &mut file)?,
        Ok(Found::Volume(header)) => unlock(start, &signed, measurer, &mut file, *header)?,
        Ok(Found::Foreign(what)) => return Err(Refusal::Foreign(what).into()),
        Err(error) => return Err(Refusal::Header(error.to_string()).into()),
    };
    let Unlocked { header, key, how } = unlocked;
    // The configuration's signature decides later whether it is worth anything.
    let seed = luks::kept_seed(&file).ok().flatten();
    let mapped = crypt::open(&header.crypt_table(), &start.device.numbers, &key[..])?;
    let uuid = header.uuid();
    let word = words::volume_measurement(&key[..], VOLUME_NAME, uuid);
    measurer.extend(VOLUME_PCR, &format!("volume key of {VOLUME_NAME}, {uuid}"), Digest(word))?;
    let machine_id = words::machine_id(&key[..]);
    measurer.extend(
        VOLUME_PCR,
        &format!("machine id {machine_id}"),
        Digest::of(format!("machine-id:{machine_id}")),
    )?;
    console::info(format_args!("state volume opened: {}", how.title()));
    Ok(StateBoot {
        device: mapped,
        partition: path.clone(),
        machine_id,
        how,
        new_file_system: header.filesystem() == Filesystem::Pending,
        seed: seed.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        copies: header::copies(&header).iter().map(|copy| copy.copy).collect(),
        pcr_key: signed.owner.pem().to_owned(),
    })
}

/// Makes a volume. The key is sealed, and unsealed again, before anything is written.
fn make<T: Transport>(
    start: &Start<'_>,
    signed: &Signed,
    measurer: &mut Measurer<T>,
    file: &mut File,
) -> Result<Unlocked, Error> {
    let tpm = measurer.tpm();
    let situation = signed.situation(tpm, start.secure_boot, start.security_version, &[])?;
    if let Some(refusal) = choice::machine_refusal(&situation) {
        return Err(refusal.into());
    }
    if !choice::is_signed(&situation) {
        let pcr7 = situation.pcrs.get(&7).copied().unwrap_or_default();
        return Err(Refusal::NotSigned { pcr7 }.into());
    }
    console::info("the state partition is empty: a volume is made");
    let mut key = Zeroizing::new([0; 64]);
    random(tpm, &mut key[..])?;
    let mut entropy = Zeroizing::new([0; 32]);
    random(tpm, &mut entropy[..])?;
    let recovery_key = RecoveryKey::from_random(*entropy);
    let text = recovery_key.text();
    let copy = Copy { generation: start.security_version, counter: sealing::ensure_counter(tpm)? };
    let sealed = signed.owner.seal(tpm, copy, &key[..])?;
    if signed.unseal(tpm, &sealed)?.as_slice() != key.as_slice() {
        return Err(Refusal::Tpm("what was sealed is not what came out".into()).into());
    }
    let escrowed =
        start.owner.recovery_key.as_deref().and_then(|pem| Some((escrow::encrypt(pem, &text)?, pem)));
    let escrow = escrowed.as_ref().map(|(ciphertext, pem)| (ciphertext.as_slice(), *pem));
    let header = header::format(file, &key, &recovery_key, &sealed, escrow)?;
    match escrowed {
        Some(_) => console::info("the recovery key is in the volume's header, for the owner's key alone"),
        None => console::announce(&recovery_block(&text)),
    }
    Ok(Unlocked { header, key, how: How::New })
}

/// What the consoles show once.
fn recovery_block(key: &str) -> String {
    let rule = "=".repeat(72);
    format!(
        "\n{rule}\nashlar: recovery key: {key}\n  Write it down: it opens the state volume when the TPM does not, and is \
         never shown again.\n{rule}\n"
    )
}

/// Opens a volume that is there, by the TPM or else with the recovery key.
fn unlock<T: Transport>(
    start: &Start<'_>,
    signed: &Signed,
    measurer: &mut Measurer<T>,
    file: &mut File,
    mut header: Header,
) -> Result<Unlocked, Error> {
    let tpm = measurer.tpm();
    let copies = header::copies(&header);
    let situation = signed.situation(tpm, start.secure_boot, start.security_version, &copies)?;
    let opened = choice::choose(&situation).and_then(|chosen| {
        let sealed = copies.iter().find(|copy| copy.copy == chosen).ok_or(Refusal::NotSealed)?;
        let begun = std::time::Instant::now();
        let key = signed.unseal(tpm, sealed)?;
        console::info(format_args!("the TPM gave the volume's key in {} ms", begun.elapsed().as_millis()));
        let key: [u8; 64] = key.as_slice().try_into().map_err(|_| Refusal::OtherVolume)?;
        let key = Zeroizing::new(key);
        if header.verify_volume_key(&key) { Ok((chosen, key)) } else { Err(Refusal::OtherVolume) }
    });
    match opened {
        Ok((chosen, key)) => {
            tidy(start, signed, tpm, file, &mut header, chosen, &key)?;
            Ok(Unlocked { header, key, how: How::Tpm })
        }
        Err(refusal) if start.asks && refusal.recovery_key_helps() => {
            let key = recover(&refusal, file, &header)?;
            // Where the machine is as the owner signed it, the TPM gets the key again.
            if choice::is_signed(&situation) && situation.same_owner {
                let counter = sealing::ensure_counter(tpm)?;
                let copy = Copy { generation: start.security_version, counter };
                let sealed = signed.owner.seal(tpm, copy, &key[..])?;
                header = header::replace_copies(file, &header, &[sealed])?;
                console::info("the volume's key is sealed to this TPM again");
            } else {
                console::warning("opened once with the recovery key; the next start will ask again");
            }
            Ok(Unlocked { header, key, how: How::RecoveryKey })
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Removes copies that the counter has ended, and makes the one for a newer release.
fn tidy<T: Transport>(
    start: &Start<'_>,
    signed: &Signed,
    tpm: &mut ashlar_tpm::Tpm<T>,
    file: &mut File,
    header: &mut Header,
    opened: Copy,
    key: &[u8; 64],
) -> Result<(), Error> {
    let mut copies: Vec<SealedCopy> = header::copies(header);
    let before = copies.len();
    copies.retain(|copy| copy.copy.counter >= opened.counter);
    let listed: Vec<Copy> = copies.iter().map(|copy| copy.copy).collect();
    let next = choice::next_copy(start.security_version, opened, &listed);
    if let Some(next) = next {
        // One for another release, which was never committed, is of no use any more.
        copies.retain(|copy| copy.copy.counter == opened.counter);
        copies.push(signed.owner.seal(tpm, next, key)?);
    }
    if next.is_some() || copies.len() != before {
        *header = header::replace_copies(file, header, &copies)?;
    } else if header.needs_repair() {
        *header = header::repair(file, header)?;
    }
    Ok(())
}

/// Shows why the TPM does not open the volume and takes the recovery key from a console.
fn recover(refusal: &Refusal, file: &File, header: &Header) -> Result<VolumeKey, Error> {
    let rule = "=".repeat(72);
    let mut question = format!(
        "\n{rule}\nashlar: the state volume stays closed: {refusal}\n  What to do: {}.\n  Recovery key (or wait {} seconds for a \
         restart): ",
        refusal.advice(),
        PROMPT_DEADLINE.as_secs()
    );
    console::keep(format_args!("the state volume stays closed: {refusal}"));
    for _ in 0..TRIES {
        let Some(line) = prompt::ask(&question, PROMPT_DEADLINE) else { break };
        match header.open_with_recovery_key(file, &line) {
            Ok(key) => return Ok(key),
            Err(error) => question = format!("\n  {error}\n  Recovery key: "),
        }
    }
    Err(refusal.clone().into())
}

/// Random bytes from the kernel and the TPM, so that neither alone decides.
fn random<T: Transport>(tpm: &mut ashlar_tpm::Tpm<T>, bytes: &mut [u8]) -> Result<(), Error> {
    fill_random(bytes).map_err(Error::io("read", "random numbers"))?;
    let other = Zeroizing::new(tpm.random(bytes.len())?);
    for (byte, other) in bytes.iter_mut().zip(other.iter()) {
        *byte ^= other;
    }
    Ok(())
}
