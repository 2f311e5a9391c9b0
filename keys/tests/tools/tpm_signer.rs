//! Keys in a TPM: made by tpm2-tools in a swtpm, used through tpm2-tss. Without the feature `tpm-signer`, that is
//! said.

use crate::{key_file, keys};
use ashlar_keys::{KeyError, KeyFolder, Role};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A folder whose PCR-policy key is elsewhere.
fn folder(place: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(keys().path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "pcr.key" {
            fs::copy(key_file(&name), dir.path().join(name)).unwrap();
        }
    }
    fs::write(dir.path().join("keys.toml"), format!("pcr = {place}\n")).unwrap();
    dir
}

fn require(dir: &Path) -> Result<KeyFolder, KeyError> {
    let keys = KeyFolder::open(dir)?;
    keys.require(&Role::BUILD).map(|()| keys)
}

#[cfg(not(feature = "tpm-signer"))]
#[test]
fn a_program_without_the_feature_says_so() {
    let dir = folder("{ tpm = \"0x81010001\" }");
    let error = require(dir.path()).unwrap_err();
    assert!(matches!(error, KeyError::NoTpmSupport(Role::Pcr)));
    assert!(error.to_string().contains("--features tpm-signer"), "{error}");
}

#[cfg(feature = "tpm-signer")]
mod with_a_tpm {
    use super::*;
    use crate::run::{Process, stdout, tool};
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    struct Tpm {
        dir: TempDir,
        tcti: String,
        _process: Process,
    }

    impl Tpm {
        fn start() -> Option<Self> {
            tool("tpm2_create", "tpm2-tools")?;
            let mut swtpm = tool("swtpm", "swtpm")?;
            let dir = tempfile::tempdir().unwrap();
            // tpm2-tss takes the port above for control.
            let port = (0..100)
                .find_map(|_| {
                    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
                    TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok().map(|_| port)
                })
                .unwrap();
            let process = Process::start(
                swtpm
                    .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
                    .arg(format!("dir={}", dir.path().display()))
                    .args(["--server", &format!("type=tcp,port={port},disconnect")])
                    .args(["--ctrl", &format!("type=tcp,port={}", port + 1)])
                    .stderr(Stdio::null()),
            );
            let tcti = format!("swtpm:host=127.0.0.1,port={port}");
            let tpm = Self { dir, tcti, _process: process };
            for _ in 0..200 {
                if tpm.command("tpm2_getrandom 1").output().unwrap().status.success() {
                    return Some(tpm);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            panic!("swtpm did not start");
        }

        fn command(&self, line: &str) -> Command {
            let mut words = line.split_ascii_whitespace();
            let mut command = Command::new(words.next().unwrap());
            command.args(words).env("TPM2TOOLS_TCTI", &self.tcti).current_dir(self.dir.path());
            command
        }

        fn run(&self, line: &str) {
            stdout(&mut self.command(line));
            stdout(&mut self.command("tpm2_flushcontext -t"));
        }
    }

    #[test]
    fn a_persistent_key_and_one_in_a_file_sign() {
        let Some(tpm) = Tpm::start() else { return };
        let path = |name: &str| tpm.dir.path().join(name);
        // The storage root key of the TCG's template.
        let of_root = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
        tpm.run(&format!("tpm2_createprimary -C o -G ecc256 -c root.ctx -a {of_root}"));
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
        let create =
            format!("tpm2_create -C root.ctx -G rsa2048 -u key.pub -r key.priv -a {attributes} -p secret");
        tpm.run(&create);
        tpm.run("tpm2_load -C root.ctx -u key.pub -r key.priv -c key.ctx");
        tpm.run("tpm2_readpublic -c key.ctx -f pem -o key.pem");
        tpm.run("tpm2_evictcontrol -C o -c key.ctx 0x81010001");
        tpm.run("tpm2_encodeobject -C root.ctx -u key.pub -r key.priv -p -o key.tss");
        fs::write(path("auth"), "secret\n").unwrap();
        for name in ["auth", "key.tss"] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let rest = format!("tcti = \"{}\", auth-file = \"{}\"", tpm.tcti, path("auth").display());
        let mut signatures = Vec::new();
        for key in ["0x81010001".to_owned(), path("key.tss").display().to_string()] {
            let dir = folder(&format!("{{ tpm = \"{key}\", {rest} }}"));
            // The folder's key is another.
            let error = require(dir.path()).unwrap_err();
            assert!(matches!(error, KeyError::Mismatch { .. }), "{error}");
            fs::copy(path("key.pem"), dir.path().join("pcr.pub")).unwrap();
            let keys = require(dir.path()).unwrap();
            let signature = keys.pcr().sign(b"a policy").unwrap();
            keys.pcr().public_key().verify(b"a policy", &signature).unwrap();
            signatures.push(signature);
        }
        assert_eq!(signatures[0], signatures[1]);
        if let Some(mut openssl) = tool("openssl", "openssl") {
            fs::write(path("message"), "a policy").unwrap();
            fs::write(path("signature"), &signatures[0]).unwrap();
            stdout(
                openssl
                    .args(["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"])
                    .current_dir(tpm.dir.path()),
            );
        }
        // Made by OpenSSL's provider for TPMs, which makes the storage root key anew as we do.
        if crate::run::file("/usr/lib/x86_64-linux-gnu/ossl-modules/tpm2.so", "tpm2-openssl").is_some() {
            let openssl = |line: &str| {
                let mut command = tpm.command(line);
                stdout(command.env("TPM2OPENSSL_TCTI", &tpm.tcti));
            };
            openssl(
                "openssl genpkey -provider tpm2 -provider default -algorithm RSA -pkeyopt bits:2048 -out o.tss",
            );
            openssl("openssl pkey -provider tpm2 -provider default -in o.tss -pubout -out o.pem");
            fs::set_permissions(path("o.tss"), fs::Permissions::from_mode(0o600)).unwrap();
            let key = path("o.tss").display().to_string();
            let dir = folder(&format!("{{ tpm = \"{key}\", tcti = \"{}\" }}", tpm.tcti));
            fs::copy(path("o.pem"), dir.path().join("pcr.pub")).unwrap();
            require(dir.path()).unwrap().pcr().sign(b"a policy").unwrap();
        }
        let dir = folder(&format!("{{ tpm = \"0x81010002\", {rest} }}"));
        let error = require(dir.path()).unwrap_err();
        assert!(error.to_string().contains("0x81010002"), "{error}");
        // A wrong authorization value.
        fs::write(path("auth"), "wrong\n").unwrap();
        let dir = folder(&format!("{{ tpm = \"0x81010001\", {rest} }}"));
        fs::copy(path("key.pem"), dir.path().join("pcr.pub")).unwrap();
        let error = require(dir.path()).unwrap().pcr().sign(b"a policy").unwrap_err();
        assert!(matches!(&error, KeyError::Tpm { action: "sign with", .. }), "{error}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
}
