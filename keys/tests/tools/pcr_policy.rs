//! Signed PCR policies: recomputed by a TPM (swtpm), which also verifies the signatures.

use crate::run::{Process, output, stdout, tool};
use crate::{key_file, keys};
use ashlar_image::digest::Digest;
use ashlar_keys::{KeyError, pcr_policy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A fresh TPM.
struct Tpm {
    dir: TempDir,
    _process: Process,
}

impl Tpm {
    fn start() -> Option<Self> {
        tool("tpm2_policypcr", "tpm2-tools")?;
        let mut swtpm = tool("swtpm", "swtpm")?;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("tpm");
        let process = Process::start(
            swtpm
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
                .arg(format!("dir={}", dir.path().display()))
                .arg("--server")
                .arg(format!("type=unixio,path={}", socket.display()))
                .arg("--ctrl")
                .arg(format!("type=unixio,path={}.ctrl", socket.display()))
                .stderr(Stdio::null()),
        );
        for _ in 0..200 {
            if socket.exists() && dir.path().join("tpm.ctrl").exists() {
                return Some(Self { dir, _process: process });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("swtpm did not start");
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.path().join("tpm").display()))
            .current_dir(self.path());
        command
    }

    /// Runs a tool, then frees what it left in the TPM: there is no resource manager.
    fn run(&self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        stdout(self.command(words.next().unwrap()).args(words));
        stdout(self.command("tpm2_flushcontext").arg("-t"));
    }
}

fn sets() -> Vec<BTreeMap<u32, Digest>> {
    let extended = Digest::ZERO.extend(Digest::of("a section"));
    let all = [7, 11, 12, 13, 15].map(|pcr| (pcr, if pcr == 11 { extended } else { Digest::ZERO }));
    vec![BTreeMap::from([(11, extended)]), BTreeMap::from(all)]
}

#[test]
fn a_tpm_computes_the_same_policy_and_accepts_the_signature() {
    let Some(tpm) = Tpm::start() else { return };
    tpm.run(&format!("tpm2_pcrextend 11:sha256={}", Digest::of("a section")));
    let text = pcr_policy::sign(keys().pcr(), &sets()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = json["sha256"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    fs::copy(key_file("pcr.pub"), tpm.path().join("pcr.pub")).unwrap();
    tpm.run("tpm2_loadexternal -C o -G rsa -u pcr.pub -c key.ctx -n key.name");
    for (entry, selection) in entries.iter().zip(["11", "7,11,12,13,15"]) {
        assert_eq!(serde_json::to_string(&entry["pcrs"]).unwrap(), format!("[{selection}]"));
        let pol = hex::decode(entry["pol"].as_str().unwrap()).unwrap();
        let sig = STANDARD.decode(entry["sig"].as_str().unwrap()).unwrap();
        fs::write(tpm.path().join("pol"), &pol).unwrap();
        fs::write(tpm.path().join("sig"), &sig).unwrap();
        tpm.run("tpm2_startauthsession --policy-session -S session.ctx");
        tpm.run(&format!("tpm2_policypcr -S session.ctx -l sha256:{selection} -L policy"));
        assert_eq!(fs::read(tpm.path().join("policy")).unwrap(), pol);
        tpm.run("tpm2_verifysignature -c key.ctx -g sha256 -m pol -s sig -f rsassa -t ticket");
        // The TPM replaces the PCR policy by "whatever this key signed" only if all of it fits.
        tpm.run("tpm2_policyauthorize -S session.ctx -i pol -n key.name -t ticket -L authorized");
        tpm.run("tpm2_flushcontext session.ctx");
        let mut wrong = sig;
        wrong[40] ^= 1;
        fs::write(tpm.path().join("sig"), &wrong).unwrap();
        let refused = output(
            tpm.command("tpm2_verifysignature")
                .args("-c key.ctx -g sha256 -m pol -s sig -f rsassa -t ticket".split(' ')),
        );
        assert!(!refused.status.success());
    }
    // Another PCR value is another policy.
    tpm.run(&format!("tpm2_pcrextend 11:sha256={}", Digest::of("another section")));
    tpm.run("tpm2_startauthsession --policy-session -S session.ctx");
    tpm.run("tpm2_policypcr -S session.ctx -l sha256:11 -L policy");
    let policy = fs::read(tpm.path().join("policy")).unwrap();
    assert_ne!(policy, pcr_policy::policy_digest(&sets()[0]).unwrap().0);
    tpm.run("tpm2_flushcontext session.ctx");
}

/// A signature for one `policyRef` is good for that one only.
#[test]
fn a_tpm_accepts_the_signature_for_its_policy_ref() {
    let Some(tpm) = Tpm::start() else { return };
    let reference = Digest::of("a generation");
    let policy = pcr_policy::Policy {
        pcrs: BTreeMap::from([(11, Digest::ZERO), (12, Digest::ZERO)]),
        policy_ref: Some(reference),
    };
    let text = pcr_policy::sign(keys().pcr(), &[policy]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entry = &json["sha256"][0];
    assert_eq!(entry["ref"], reference.to_string());
    let pol = hex::decode(entry["pol"].as_str().unwrap()).unwrap();
    fs::copy(key_file("pcr.pub"), tpm.path().join("pcr.pub")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(tpm.path().join(name), bytes).unwrap();
    write("pol", &pol);
    write("ref", &reference.0);
    write("other", &Digest::of("another generation").0);
    write("message", &[&pol[..], &reference.0].concat());
    write("sig", &STANDARD.decode(entry["sig"].as_str().unwrap()).unwrap());
    tpm.run("tpm2_loadexternal -C o -G rsa -u pcr.pub -c key.ctx -n key.name");
    tpm.run("tpm2_verifysignature -c key.ctx -g sha256 -m message -s sig -f rsassa -t ticket");
    tpm.run("tpm2_startauthsession --policy-session -S session.ctx");
    tpm.run("tpm2_policypcr -S session.ctx -l sha256:11,12");
    let authorize = "tpm2_policyauthorize -S session.ctx -i pol -n key.name -t ticket";
    let refused = output(
        tpm.command("tpm2_policyauthorize")
            .args(format!("{authorize} -q other").split_ascii_whitespace().skip(1)),
    );
    assert!(!refused.status.success(), "another policyRef");
    tpm.run(&format!("{authorize} -q ref"));
    tpm.run("tpm2_flushcontext session.ctx");
}

#[test]
fn the_text_has_systemds_form() {
    let text = pcr_policy::sign(keys().pcr(), &sets()[..1]).unwrap();
    let fingerprint = Digest::of(keys().pcr().public_key().pkcs1_der().unwrap());
    let pol = pcr_policy::policy_digest(&sets()[0]).unwrap();
    let head = format!(r#"{{"sha256":[{{"pcrs":[11],"pkfp":"{fingerprint}","pol":"{pol}","sig":""#);
    assert!(text.starts_with(&head), "{text}");
    assert!(text.ends_with(r#""}]}"#));
    assert_eq!(text, pcr_policy::sign(keys().pcr(), &sets()[..1]).unwrap());
    let signature = STANDARD.decode(&text[head.len()..text.len() - 4]).unwrap();
    keys().pcr().public_key().verify(&pol.0, &signature).unwrap();
}

#[test]
fn openssl_verifies_the_signature_and_gives_the_same_fingerprint() {
    let Some(mut openssl) = tool("openssl", "openssl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (pol, sig, key) = (dir.path().join("pol"), dir.path().join("sig"), dir.path().join("pcrpkey"));
    let digest = pcr_policy::policy_digest(&sets()[1]).unwrap();
    fs::write(&pol, digest.0).unwrap();
    fs::write(&sig, keys().pcr().sign(&digest.0).unwrap()).unwrap();
    fs::write(&key, pcr_policy::public_key_pem(keys().pcr()).unwrap()).unwrap();
    assert_eq!(fs::read(&key).unwrap(), fs::read(key_file("pcr.pub")).unwrap());
    stdout(openssl.args(["dgst", "-sha256", "-verify"]).arg(&key).arg("-signature").arg(&sig).arg(&pol));
    let mut openssl = Command::new("openssl");
    let pkcs1 =
        output(openssl.args(["rsa", "-pubin", "-RSAPublicKey_out", "-outform", "DER", "-in"]).arg(&key));
    assert_eq!(pkcs1.stdout, keys().pcr().public_key().pkcs1_der().unwrap());
}

#[test]
fn policies_over_nothing_are_refused() {
    let sign = |values: &[BTreeMap<u32, Digest>]| pcr_policy::sign(keys().pcr(), values);
    assert!(matches!(sign(&[]), Err(KeyError::Pcrs)));
    assert!(matches!(sign(&[BTreeMap::new()]), Err(KeyError::Pcrs)));
    assert!(matches!(sign(&[BTreeMap::from([(24, Digest::ZERO)])]), Err(KeyError::Pcrs)));
}
