//! The machine configuration: where it comes from, which one is in force, and what becomes of one that is offered.
//!
//! Three places may have one: the state volume (the last that was accepted), the seed that an installer left, and the
//! image. Each is believed only with the owner's signature; of those that verify, the highest serial wins. One that is
//! wrong is told and changes nothing.

use crate::durable;
use crate::error::Error;
use ashlar_image::control::{Applied, ConfigurationState, Refusal, RefusalKind};
use ashlar_image::machine::{self, ConfigError, MAX_ENVELOPE, MachineConfig, PublicKey, Serial, Verified};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Folder of what PID 1 keeps on the state volume.
pub const FOLDER: &str = "/var/lib/ashlar";
/// The configuration in force, in [`FOLDER`].
pub const FILE: &str = "machine.dsse";
/// The one before, in [`FOLDER`].
pub const PREVIOUS: &str = "machine.dsse.previous";
/// A configuration that is part of the image.
pub const EMBEDDED: &str = "/usr/lib/ashlar/machine.dsse";

/// The configuration in force.
#[derive(Debug)]
struct Current {
    verified: Verified<MachineConfig>,
    envelope: Vec<u8>,
    source: &'static str,
}

/// The configuration in force, and what is known of others.
#[derive(Debug)]
pub struct Configuration {
    folder: PathBuf,
    key: PublicKey,
    current: Option<Current>,
    refused: Option<String>,
}

/// A configuration that verified and is not in force yet.
#[derive(Debug)]
pub struct Offered {
    verified: Verified<MachineConfig>,
    envelope: Vec<u8>,
}

impl Offered {
    /// What it says.
    pub fn config(&self) -> &MachineConfig {
        self.verified.config()
    }

    /// SHA-256 of its text: what is measured.
    pub fn digest(&self) -> ashlar_image::digest::Digest {
        self.verified.digest()
    }
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A file of bounded size; none when it is not there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_ENVELOPE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Configuration {
    /// Looks at all places. `key` is the owner's configuration key, hexadecimal, as the image has it.
    pub fn load(folder: &Path, key: &str, seed: Option<&str>) -> Result<Self, Error> {
        let key = hex::decode(key).ok().and_then(|bytes| bytes.try_into().ok()).map(PublicKey);
        let key = key.ok_or(Error::OwnerKey)?;
        let mut this = Self { folder: folder.to_owned(), key, current: None, refused: None };
        let places = [
            ("state volume", read(&folder.join(FILE))),
            ("installation", Ok(seed.map(|text| text.as_bytes().to_vec()))),
            ("image", read(Path::new(EMBEDDED))),
        ];
        for (source, found) in places {
            match found {
                Ok(None) => {}
                Ok(Some(envelope)) => this.consider(source, envelope),
                Err(error) => this.refused = Some(format!("{source}: {error}")),
            }
        }
        Ok(this)
    }

    /// Takes it if it verifies and has the highest serial so far.
    fn consider(&mut self, source: &'static str, envelope: Vec<u8>) {
        match machine::verify(&envelope, &self.key, None) {
            Ok(verified) => {
                let serial = verified.config().serial;
                if self.serial().is_none_or(|current| serial > current) {
                    self.current = Some(Current { verified, envelope, source });
                }
            }
            Err(errors) => self.refused = Some(format!("{source}: {}", lines(&errors))),
        }
    }

    /// What is in force.
    pub fn config(&self) -> Option<&MachineConfig> {
        self.current.as_ref().map(|current| current.verified.config())
    }

    /// SHA-256 of what is in force.
    pub fn digest(&self) -> Option<ashlar_image::digest::Digest> {
        self.current.as_ref().map(|current| current.verified.digest())
    }

    /// Its serial.
    pub fn serial(&self) -> Option<u64> {
        self.config().map(|config| config.serial)
    }

    /// Why one was refused.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// For the control API.
    pub fn state(&self) -> ConfigurationState {
        ConfigurationState {
            text: self.current.as_ref().map(|current| current.verified.text().to_owned()),
            digest: self.digest(),
            serial: self.serial(),
            source: self.current.as_ref().map(|current| current.source.to_owned()),
            refused: self.refused.clone(),
        }
    }

    /// Keeps what is in force on the state volume, if it came from elsewhere.
    pub fn store(&self) -> io::Result<()> {
        match &self.current {
            Some(current) if current.source != "state volume" => self.write(&current.envelope),
            _ => Ok(()),
        }
    }

    fn write(&self, envelope: &[u8]) -> io::Result<()> {
        let path = self.folder.join(FILE);
        if let Some(before) = read(&path)? {
            durable::replace(&self.folder.join(PREVIOUS), &before, 0o600)?;
        }
        durable::replace(&path, envelope, 0o600)
    }

    /// Judges an offered configuration; nothing changes but what is told of the last refusal.
    pub fn offer(&mut self, envelope: &str) -> Result<Offered, Refusal> {
        let current = self.current.as_ref().map(|current| current.verified.serial());
        match self.verify(envelope.as_bytes(), current) {
            Ok(offered) => Ok(offered),
            Err(errors) => {
                let message = lines(&errors);
                self.refused = Some(format!("control: {message}"));
                let signature = errors.iter().any(|error| matches!(error, ConfigError::Signature { .. }));
                Err(Refusal {
                    kind: if signature { RefusalKind::Forbidden } else { RefusalKind::Invalid },
                    message,
                    advice: if signature {
                        "sign it with the configuration key of this image's owner (`ashlar machine sign`)"
                            .into()
                    } else {
                        "correct it, `ashlar machine check` it, and sign it again; the one in force stays"
                            .into()
                    },
                })
            }
        }
    }

    fn verify(&self, envelope: &[u8], current: Option<Serial>) -> Result<Offered, Vec<ConfigError>> {
        let verified = machine::verify(envelope, &self.key, current)?;
        Ok(Offered { verified, envelope: envelope.to_vec() })
    }

    /// What an offered configuration would change.
    pub fn changes(&self, offered: &Offered) -> Applied {
        let empty = MachineConfig::empty(0);
        let changes = machine::diff(self.config().unwrap_or(&empty), offered.config());
        Applied {
            serial: offered.config().serial,
            changed: changes.at_once,
            needs_reboot: changes.needs_reboot,
        }
    }

    /// Puts an offered configuration into force: it is on the state volume when this is back.
    pub fn accept(&mut self, offered: Offered) -> io::Result<()> {
        self.write(&offered.envelope)?;
        let Offered { verified, envelope } = offered;
        self.current = Some(Current { verified, envelope, source: "control" });
        self.refused = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    fn owner() -> (SigningKey, String) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = hex::encode(key.verifying_key().as_bytes());
        (key, public)
    }

    fn envelope(key: &SigningKey, text: &str) -> String {
        let public = PublicKey(*key.verifying_key().as_bytes());
        let signature = key.sign(&machine::payload(text));
        String::from_utf8(machine::sign(text, &public, &signature.to_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_highest_serial_that_verifies_wins_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = owner();
        let seed = envelope(&key, "serial = 3\nhostname = \"three\"\n");
        let loaded = Configuration::load(folder.path(), &public, Some(&seed)).unwrap();
        assert_eq!((loaded.serial(), loaded.state().source.as_deref()), (Some(3), Some("installation")));
        loaded.store().unwrap();
        // The seed is gone, and the volume has it.
        let mut loaded = Configuration::load(folder.path(), &public, None).unwrap();
        assert_eq!(loaded.state().source.as_deref(), Some("state volume"));
        assert_eq!(loaded.config().unwrap().hostname.as_deref(), Some("three"));

        // Wrong ones change nothing, and the reason stays to be seen.
        let other = SigningKey::from_bytes(&[8; 32]);
        for (text, kind, word) in [
            (envelope(&other, "serial = 9\n"), RefusalKind::Forbidden, "signature"),
            (envelope(&key, "serial = 2\n"), RefusalKind::Invalid, "older"),
            (envelope(&key, "serial = 4\nhostnam = \"x\"\n"), RefusalKind::Invalid, "hostnam"),
            ("no envelope".into(), RefusalKind::Invalid, ""),
        ] {
            let refusal = loaded.offer(&text).unwrap_err();
            assert_eq!(refusal.kind, kind, "{refusal:?}");
            assert!(refusal.message.contains(word), "{refusal:?}");
            assert_eq!(loaded.serial(), Some(3));
            assert!(loaded.refused().unwrap().starts_with("control: "));
        }

        let offered = loaded.offer(&envelope(&key, "serial = 5\nhostname = \"five\"\n")).unwrap();
        assert_eq!(loaded.changes(&offered).serial, 5);
        assert!(!loaded.changes(&offered).changed.is_empty());
        loaded.accept(offered).unwrap();
        assert_eq!((loaded.serial(), loaded.refused()), (Some(5), None));
        let again = Configuration::load(folder.path(), &public, Some(&seed)).unwrap();
        assert_eq!(again.serial(), Some(5));
        // The one before is kept beside it.
        let before = std::fs::read_to_string(folder.path().join(PREVIOUS)).unwrap();
        assert_eq!(before, seed);
    }

    #[test]
    fn a_damaged_file_is_told_and_the_image_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (_, public) = owner();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let loaded = Configuration::load(folder.path(), &public, None).unwrap();
        assert!(loaded.config().is_none());
        assert!(loaded.refused().unwrap().starts_with("state volume: "));
        assert!(matches!(Configuration::load(folder.path(), "ab", None), Err(Error::OwnerKey)));
    }
}
