//! What each version of systemd-stub measures and hands to the kernel. Found in the sources of the versions
//! below and proven by the boots in `testdata/`.

use super::PredictError;
use crate::uki::Uki;
use ashlar_image::digest::Digest;
use std::collections::BTreeMap;

/// A part of the initrd that the stub hands over.
enum Part {
    /// The section as it is.
    Section(&'static str),
    /// The section as the file `.extra/NAME` in a cpio archive.
    Archive(&'static str, &'static str),
}

/// The rules of one version.
pub(super) struct Rules {
    major: u32,
    /// Sections in the order in which they are measured into PCR 11. `.pcrsig` never is: it signs the result.
    measured: &'static [&'static str],
    /// Parts of the initrd in order. Credentials and extensions from the ESP would come in between; a machine
    /// that has some differs in PCR 12 or 13, and rightly in PCR 9.
    initrd: &'static [Part],
}

const SIGNATURE: Part = Part::Archive(".pcrsig", "tpm2-pcr-signature.json");
const PUBLIC_KEY: Part = Part::Archive(".pcrpkey", "tpm2-pcr-public-key.pem");

/// Versions whose rules are known. A new one gets its line with the log of a boot in `testdata/`.
const RULES: [Rules; 2] = [
    Rules {
        major: 252,
        measured: &[".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"],
        initrd: &[Part::Section(".initrd"), SIGNATURE, PUBLIC_KEY],
    },
    Rules {
        major: 257,
        measured: &[
            ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
            ".pcrpkey",
        ],
        initrd: &[
            Part::Section(".ucode"),
            Part::Section(".initrd"),
            SIGNATURE,
            PUBLIC_KEY,
            Part::Archive(".osrel", "os-release"),
        ],
    },
];

/// Sections with which it depends on the machine what is measured: profiles are chosen by load options,
/// device trees and firmware by hardware.
const MACHINE_DEPENDENT: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];

impl Rules {
    pub(super) fn of(major: u32) -> Result<&'static Self, PredictError> {
        RULES.iter().find(|rules| rules.major == major).ok_or_else(|| PredictError::Stub {
            major,
            known: RULES.each_ref().map(|rules| rules.major.to_string()).join(", "),
        })
    }

    /// The sections among `sections` that are measured into PCR 11, in order.
    pub(super) fn measured<'a>(
        &self,
        sections: &'a BTreeMap<String, Digest>,
    ) -> Result<Vec<(&'static str, &'a Digest)>, PredictError> {
        if let Some(name) = MACHINE_DEPENDENT.iter().find(|name| sections.contains_key(**name)) {
            return Err(PredictError::MachineDependent(name));
        }
        // The stub passes over empty sections.
        let empty = Digest::of([]);
        let found = self.measured.iter().filter_map(|name| Some((*name, sections.get(*name)?)));
        Ok(found.filter(|(_, digest)| **digest != empty).collect())
    }

    /// The initrd as the kernel gets it: one part alone as it is, several each filled with zeros to a
    /// multiple of four bytes.
    pub(super) fn initrd(&self, uki: &Uki<'_>) -> Vec<u8> {
        self.join(|name| uki.section(name).map(<[u8]>::to_vec))
    }

    pub(super) fn join(&self, section: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<u8> {
        let mut parts = Vec::new();
        for part in self.initrd {
            let (Part::Section(name) | Part::Archive(name, _)) = part;
            if let Some(content) = section(name).filter(|content| !content.is_empty()) {
                parts.push(match part {
                    Part::Section(_) => content,
                    Part::Archive(_, file) => archive(file, &content),
                });
            }
        }
        if let [_] = parts.as_slice() {
            return parts.concat();
        }
        parts.iter_mut().for_each(pad);
        parts.concat()
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The cpio archive (`newc`, Linux `Documentation/driver-api/early-userspace/buffer-format.rst`) that the
/// stub makes of one section: the directory `.extra` and in it `file`, both readable for all.
fn archive(file: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, 1, 0o040_555, ".extra", &[]);
    entry(&mut out, 2, 0o100_444, &format!(".extra/{file}"), content);
    // The trailer as the stub has it: all zero but the number of links and the name's length, and that one,
    // unlike in the other headers, in upper case.
    let zero = "00000000";
    let header = ["070701", &zero.repeat(4), "00000001", &zero.repeat(6), "0000000B", zero].concat();
    out.extend(header.as_bytes());
    out.extend(b"TRAILER!!!\0\0\0\0");
    out
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, path: &str, content: &[u8]) {
    // A section of a PE file is below 4 GiB, a path far below.
    let fields = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
    out.extend(b"070701");
    out.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    out.extend(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend(content);
    pad(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_handed_over_as_it_is_and_several_are_filled_up() {
        let rules = Rules::of(252).unwrap();
        let alone = rules.join(|name| (name == ".initrd").then(|| b"12345".to_vec()));
        assert_eq!(alone, b"12345");
        let both = rules.join(|name| matches!(name, ".initrd" | ".pcrsig").then(|| b"12345".to_vec()));
        assert!(both.starts_with(b"12345\0\0\x00070701"));
        assert_eq!(both.len() % 4, 0);
    }

    /// GNU cpio must find in the archive what the stub put there.
    #[test]
    fn cpio_reads_the_archive() {
        use std::io::Write as _;
        let child = std::process::Command::new("cpio")
            .args(["--extract", "--to-stdout", "--quiet", ".extra/name"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: cpio is needed (package cpio)");
            return;
        };
        child.stdin.take().unwrap().write_all(&archive("name", b"content of five")).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"content of five");
    }
}
