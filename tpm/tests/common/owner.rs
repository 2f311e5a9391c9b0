//! The owner's side, by openssl: keys, and signatures over policies.

use super::run;
use ashlar_tpm::{Counter, PcrKey, PcrSignatures, PcrValues, Policy, Sealed, Srk, Tpm, Transport, seal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::process::Command;

pub const PCRS: [u32; 5] = [7, 11, 12, 13, 15];
pub const HANDLE: u32 = 0x8100_0001;
pub const COUNTER: Counter = Counter::at(0x0180_a541);
pub const REFERENCE: [u8; 32] = [0x5e; 32];
/// As long as a volume key.
pub const SECRET: [u8; 64] = *b"a secret that nobody on the wire may see, and of sixty-four byte";

/// An owner with a key.
pub struct Owner {
    folder: tempfile::TempDir,
    pub key: PcrKey,
}

impl Owner {
    /// Makes a key; none where openssl is not installed.
    pub fn new() -> Option<Self> {
        Self::with_bits(2048)
    }

    pub fn with_bits(bits: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |line: &str| {
            let output = run(
                Command::new("openssl").args(line.split(' ')).current_dir(folder.path()),
                "openssl",
                &[],
            )?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(output)
        };
        openssl(&format!("genrsa -out key.pem {bits}"))?;
        openssl("rsa -in key.pem -pubout -out key.pub")?;
        let pem = std::fs::read(folder.path().join("key.pub")).unwrap();
        Some(Self { key: PcrKey::from_pem(&pem).unwrap(), folder })
    }

    /// Where the private key is.
    pub fn private(&self) -> std::path::PathBuf {
        self.folder.path().join("key.pem")
    }

    /// SHA-256 of the PKCS#1 DER, by openssl.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut openssl = Command::new("openssl");
        openssl.args(["rsa", "-in", "key.pem", "-RSAPublicKey_out", "-outform", "DER"]);
        super::sha256(&run(openssl.current_dir(self.folder.path()), "openssl", &[]).unwrap().stdout)
    }

    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign", "key.pem"]).current_dir(self.folder.path());
        let output = run(&mut openssl, "openssl", bytes).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The policy of this generation with this counter.
    pub fn policy(&self, counter: u64) -> Policy<'_> {
        Policy { key: &self.key, policy_ref: Some(REFERENCE), counter: Some((COUNTER, counter)) }
    }

    /// The text of `.pcrsig` that allows each of these values.
    pub fn pcrsig(&self, allowed: &[(&PcrValues, Option<[u8; 32]>)]) -> PcrSignatures {
        let entries = allowed.iter().map(|(values, reference)| {
            let pol = values.policy();
            let sig = STANDARD.encode(self.sign(&Policy::to_sign(&pol, reference.as_ref())));
            let pcrs: Vec<u32> = values.pcrs().collect();
            let (pkfp, pol) = (hex::encode(self.key.fingerprint()), hex::encode(pol));
            let more = reference.map(|r| format!(r#","ref":"{}""#, hex::encode(r))).unwrap_or_default();
            format!(r#"{{"pcrs":{pcrs:?},"pkfp":"{pkfp}","pol":"{pol}","sig":"{sig}"{more}}}"#)
        });
        let text = format!(r#"{{"sha256":[{}]}}"#, entries.collect::<Vec<_>>().join(","));
        PcrSignatures::parse(text.as_bytes()).unwrap()
    }
}

/// A machine that was set up: its key, and what is noted on its disk.
pub struct Enrolled {
    pub srk: Srk,
    pub counter: u64,
    pub values: PcrValues,
    pub signature: Vec<u8>,
    pub sealed: Sealed,
}

impl Enrolled {
    pub fn new<T: Transport>(tpm: &mut Tpm<T>, owner: &Owner) -> Self {
        let srk = Srk::ensure(tpm, HANDLE).unwrap();
        let counter = COUNTER.ensure(tpm).unwrap();
        let values = PcrValues::read(tpm, &PCRS).unwrap();
        let signature = owner.sign(&Policy::to_sign(&values.policy(), Some(&REFERENCE)));
        let sealed = seal(tpm, &srk, &owner.policy(counter).digest(), &SECRET).unwrap();
        Self { srk, counter, values, signature, sealed }
    }
}
