//! Certificates that expire while the image is in use.

use super::Context;
use crate::error::LintError;
use crate::report::Part;
use crate::report::Severity::{Error, Warning};
use ashlar_tree::Kind;
use std::collections::BTreeSet;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Longest file that is looked at, in bytes; bundles of public authorities are longer.
const LIMIT: u64 = 64 << 10;
const YEAR: i64 = 365 * 86_400;
/// Folders of public authorities, which change with their package.
const PUBLIC: [&str; 3] = ["/etc/ssl/certs/", "/etc/ca-certificates/", "/etc/pki/ca-trust/"];

/// End of the validity of each certificate, in seconds since 1970: of a DER file, or of all in a PEM file.
fn ends(bytes: &[u8]) -> Vec<i64> {
    let certificates = match Certificate::from_der(bytes) {
        Ok(certificate) => vec![certificate],
        Err(_) => {
            let Some(start) = memchr::memmem::find(bytes, b"-----BEGIN CERTIFICATE-----") else {
                return Vec::new();
            };
            Certificate::load_pem_chain(bytes.get(start..).unwrap_or_default()).unwrap_or_default()
        }
    };
    let end = |c: &Certificate| c.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
    certificates.iter().filter_map(|c| i64::try_from(end(c)).ok()).collect()
}

pub(crate) fn check(context: &mut Context<'_, '_>) -> Result<(), LintError> {
    let time = context.subject.build_time;
    let mut found = Vec::new();
    let mut judge = |part: &Part, path: Option<String>, what: &str, bytes: &[u8]| {
        let Some(end) = ends(bytes).into_iter().min() else { return };
        let (severity, message) = if end < time {
            (Error, format!("{what} expired {} days before the build", (time - end) / 86_400))
        } else if end - time < YEAR {
            (Warning, format!("{what} expires {} days after the build", (end - time) / 86_400))
        } else {
            return;
        };
        found.push((severity, part.clone(), path, message));
    };
    for certificate in context.subject.certificates {
        judge(
            &Part::Image,
            None,
            &format!("the owner's certificate `{}`", certificate.name),
            certificate.der,
        );
    }
    let own: BTreeSet<&str> = context.subject.own_files.iter().map(String::as_str).collect();
    for part in context.parts {
        for entry in &part.entries {
            let Kind::File(content) = &entry.node.kind else { continue };
            let path = &entry.path;
            let named = [b".crt".as_slice(), b".pem", b".cer"].iter().any(|end| path.ends_with(end));
            if !named || content.len() > LIMIT {
                continue;
            }
            let path = entry.shown();
            let in_etc = path.starts_with("/etc/") && !PUBLIC.iter().any(|folder| path.starts_with(folder));
            if !in_etc && !own.contains(format!("{}{path}", part.prefix).as_str()) {
                continue;
            }
            let bytes = content.read().map_err(|source| LintError::Read {
                file: path.clone(),
                path: crate::parts::host_path(content),
                source,
            })?;
            judge(&part.part, Some(path), "a certificate in it", &bytes);
        }
    }
    for (severity, part, path, message) in found {
        let help = "renew it, then build again";
        context.add(("certificate-expiry", severity), &part, path, message, help);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, TIME, of_rule, put, subject, tree};
    use crate::{Certificate, Subject, lint};
    use std::process::Command;

    /// A certificate that OpenSSL makes, valid from now for some days, in DER and PEM.
    fn certificate(days: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let run = |form: &str| {
            let output = Command::new("timeout")
                .args([
                    "20",
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                ])
                .args(["-nodes", "-keyout", "/dev/null", "-subj", "/CN=x", "-days", days, "-outform", form])
                .output()
                .ok()?;
            output.status.success().then_some(output.stdout)
        };
        Some((run("DER")?, run("PEM")?))
    }

    #[test]
    fn dates_are_compared_with_the_build_time() {
        let Some((der, pem)) = certificate("400") else {
            eprintln!("skipped: openssl is not installed");
            return;
        };
        let end = super::ends(&der)[0];
        assert!((end - super::ends(&pem)[0]).abs() < 60, "both forms are read");
        assert!(super::ends(b"-----BEGIN CERTIFICATE-----\nno\n").is_empty());
        for cut in 0..der.len() {
            super::ends(&der[..cut]);
        }

        let mut tree = tree();
        put(&mut tree, "/etc/tls/ca.crt", 0o644, [b"# ours\n".as_slice(), &pem].concat());
        put(&mut tree, "/etc/ssl/certs/public.pem", 0o644, &pem);
        put(&mut tree, "/usr/share/x.crt", 0o644, &pem);
        put(&mut tree, &format!("{PREFIX}/srv/own.pem"), 0o644, &pem);
        tree.walk_mut(|node| node.metadata.mtime = 0);
        let own = [format!("{PREFIX}/srv/own.pem")];
        let certificates = [Certificate { name: "db", der: &der }];
        let found = |build_time| {
            let subject =
                Subject { build_time, own_files: &own, certificates: &certificates, ..subject(&tree) };
            of_rule(&lint(&subject, &[]).unwrap(), "certificate-expiry")
        };
        assert!(found(end - 366 * 86_400).is_empty());
        assert_eq!(
            found(end - 300 * 86_400 + 100),
            [
                "image -: the owner's certificate `db` expires 299 days after the build",
                "root /etc/tls/ca.crt: a certificate in it expires 299 days after the build",
                "container web /srv/own.pem: a certificate in it expires 299 days after the build",
            ]
        );
        assert!(found(end + 10 * 86_400)[0].contains("expired 10 days before the build"));
        assert!(TIME < end);
    }
}
