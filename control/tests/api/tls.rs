//! Mutual TLS: who gets in, judged by curl and OpenSSL.

use crate::machine::Machine;
use crate::programs::{Output, output, tool};
use ashlar_control::identity;
use ashlar_control::role::Role;
use ashlar_image::control::{Refusal, RefusalKind, Request};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};

fn curl(machine: &Machine, identity: &str, arguments: &[&str], path: &str) -> Option<Output> {
    let mut command = tool("curl")?;
    command
        .args(["--silent", "--show-error", "--max-time", "50", "--insecure", "--http2"])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .args(arguments);
    if !identity.is_empty() {
        command.args(["--cert", identity]);
    }
    command.arg(format!("https://{}{path}", machine.address)).current_dir(machine.folder.path());
    Some(output(&mut command, b""))
}

#[test]
fn each_role_may_what_it_may() {
    let machine = Machine::start();
    let addresses = [
        ("/v1/status", &[][..], Role::Reader),
        ("/v1/services", &[], Role::Reader),
        ("/v1/measurements", &[], Role::Reader),
        ("/v1/logs", &[], Role::Reader),
        ("/v1/configuration", &[], Role::Operator),
        ("/v1/services/web/restart", &["--request", "POST"], Role::Operator),
        ("/v1/reboot", &["--request", "POST"], Role::Operator),
        ("/v1/power-off", &["--request", "POST"], Role::Operator),
        ("/v1/configuration", &["--request", "PUT", "--data", "{}"], Role::Admin),
        ("/v1/configuration?dry-run=true", &["--request", "PUT", "--data", "{}"], Role::Admin),
        ("/v1/state/reseal", &["--data", "{\"recovery_key\":\"good-key\"}"], Role::Admin),
    ];
    for role in Role::ALL {
        for (path, arguments, needed) in addresses {
            let before = machine.requests().len();
            let Some(output) = curl(&machine, &format!("{role}.pem"), arguments, path) else { return };
            let (body, code) = output.stdout.rsplit_once('\n').unwrap();
            let expected = if role < needed {
                let refusal: Refusal = serde_json::from_str(body).unwrap();
                assert_eq!(refusal.kind, RefusalKind::Forbidden);
                assert!(refusal.message.contains(needed.name()) && refusal.message.contains(role.name()));
                assert_eq!(machine.requests().len(), before, "{role} {path}");
                "403 2"
            } else if arguments.contains(&"POST") || path.ends_with("reseal") {
                "204 2"
            } else {
                "200 2"
            };
            assert_eq!(code, expected, "{role} {path} {output:?}");
        }
    }
    assert!(machine.requests().contains(&Request::PowerOff));
}

/// A client certificate of the machine's CA with something else about it.
fn special(machine: &Machine, name: &str, change: impl FnOnce(&mut CertificateParams)) {
    let read = |file| std::fs::read_to_string(machine.path("ca").join(file)).unwrap();
    let ca_key = KeyPair::from_pem(&read(identity::CA_KEY)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read(identity::CA_CERTIFICATE), ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "admin");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &issuer).unwrap().pem() + &key.serialize_pem();
    std::fs::write(machine.path(name), pem).unwrap();
}

#[test]
fn who_does_not_get_in() {
    let machine = Machine::start();
    // A CA of the same name with another key, a certificate by itself, and four wrong ones of the right CA.
    identity::new_ca(&machine.path("foreign"), "Clients").unwrap();
    let pem = identity::new_client(&machine.path("foreign"), "mallory", Role::Admin, 30).unwrap();
    std::fs::write(machine.path("foreign.pem"), pem).unwrap();
    let key = KeyPair::generate().unwrap();
    let alone = CertificateParams::default().self_signed(&key).unwrap();
    std::fs::write(machine.path("alone.pem"), alone.pem() + &key.serialize_pem()).unwrap();
    special(&machine, "expired.pem", |params| params.not_after = date_time_ymd(2020, 1, 1));
    special(&machine, "early.pem", |params| params.not_before = date_time_ymd(2999, 1, 1));
    special(&machine, "server.pem", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    // Issued by a client: no CA.
    let admin = std::fs::read_to_string(machine.path("admin.pem")).unwrap();
    let (admin, admin_key) = admin.split_at(admin.find("-----BEGIN PRIVATE").unwrap());
    let issuer = Issuer::from_ca_cert_pem(admin, KeyPair::from_pem(admin_key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let below = params.signed_by(&key, &issuer).unwrap();
    let chain = below.pem() + admin + &key.serialize_pem();
    std::fs::write(machine.path("below.pem"), chain).unwrap();

    for identity in ["", "foreign.pem", "alone.pem", "expired.pem", "early.pem", "server.pem", "below.pem"] {
        let Some(output) = curl(&machine, identity, &["--request", "POST"], "/v1/reboot") else { return };
        assert!(!output.status.success() && output.stdout.ends_with("\n000 0"), "{identity}: {output:?}");
        assert!(output.stderr.contains("alert") || output.stderr.contains("SSL"), "{identity}: {output:?}");
    }
    assert_eq!(machine.requests(), []);
    let good = curl(&machine, "admin.pem", &["--request", "POST"], "/v1/reboot").unwrap();
    assert!(good.stdout.ends_with("204 2"), "{good:?}");
    // In the handshake it is right, but it may nothing.
    special(&machine, "roleless.pem", |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    let output = curl(&machine, "roleless.pem", &[], "/v1/status").unwrap();
    assert!(output.stdout.ends_with("403 2") && output.stdout.contains("names no role"), "{output:?}");
}

#[test]
fn what_openssl_says() {
    let machine = Machine::start();
    let Some(mut openssl) = tool("openssl") else { return };
    let address = machine.address.to_string();
    let client = |arguments: &[&str]| {
        let mut command = tool("openssl").unwrap();
        command.args(["s_client", "-connect", &address]).args(arguments).current_dir(machine.folder.path());
        output(&mut command, b"")
    };
    let old = client(&["-tls1_2", "-cert", "admin.pem"]);
    assert!(!old.status.success() && old.stderr.contains("alert protocol version"), "{old:?}");
    let good = client(&["-cert", "admin.pem", "-alpn", "h2"]);
    assert!(good.stdout.contains("TLSv1.3") && good.stdout.contains("ALPN protocol: h2"), "{good:?}");
    assert!(good.stdout.contains("Clients"), "the names of the CAs are told: {good:?}");
    let other = client(&["-cert", "admin.pem", "-alpn", "http/1.1"]);
    assert!(other.stderr.contains("alert no application protocol"), "{other:?}");
    // That it is refused, OpenSSL sees when it reads: the handshake is over for it.
    let none = client(&["-alpn", "h2", "-ign_eof"]);
    assert!(none.stderr.contains("alert certificate required"), "{none:?}");

    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in", "identity/identity.pem"]);
    let shown = output(openssl.current_dir(machine.folder.path()), b"");
    let ours: ashlar_control::fingerprint::Fingerprint = machine.fingerprint().parse().unwrap();
    assert_eq!(shown.stdout.parse(), Ok(ours), "{shown:?}");
    for role in Role::ALL {
        let mut verify = tool("openssl").unwrap();
        verify.args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca/client-ca.pem"]);
        let verified = output(verify.arg(format!("{role}.pem")).current_dir(machine.folder.path()), b"");
        assert!(verified.status.success(), "{verified:?}");
    }
}

/// Runs openssl with these arguments in the machine's folder; it must succeed.
fn openssl(machine: &Machine, arguments: &str) {
    let output =
        output(tool("openssl").unwrap().args(arguments.split(' ')).current_dir(machine.folder.path()), b"");
    assert!(output.status.success(), "openssl {arguments}: {output:?}");
}

#[test]
fn certificates_that_openssl_made() {
    let machine = Machine::start();
    if tool("openssl").is_none() {
        return;
    }
    // By the machine's CA for an RSA key, with the role as a URI.
    std::fs::write(
        machine.path("extensions"),
        "extendedKeyUsage=clientAuth\nsubjectAltName=URI:urn:ashlar:role:operator\n",
    )
    .unwrap();
    openssl(&machine, "req -new -newkey rsa:2048 -nodes -keyout rsa.key -subj /CN=rsa -out rsa.csr");
    openssl(
        &machine,
        "x509 -req -in rsa.csr -CA ca/client-ca.pem -CAkey ca/client-ca.key -set_serial 7 -days 2 \
         -extfile extensions -out rsa.crt",
    );
    let both =
        ["rsa.crt", "rsa.key"].map(|name| std::fs::read_to_string(machine.path(name)).unwrap()).concat();
    std::fs::write(machine.path("rsa.pem"), both).unwrap();
    let Some(output) = curl(&machine, "rsa.pem", &["--request", "POST"], "/v1/services/web/stop") else {
        return;
    };
    assert!(output.stdout.ends_with("204 2"), "{output:?}");
    let output =
        curl(&machine, "rsa.pem", &["--request", "PUT", "--data", "{}"], "/v1/configuration").unwrap();
    assert!(output.stdout.ends_with("403 2"), "{output:?}");
}
