//! What starts the root: kernel, modules, initramfs and the signed UKI.

use crate::error::BuildError;
use crate::recipe::Recipe;
use ashlar_boot::modules::{self, Module};
use ashlar_boot::uki::Section;
use ashlar_debian::Package;
use ashlar_image::cmdline::VerityRoot;
use ashlar_image::digest::Digest;
use ashlar_image::release::{self, Artifact};
use ashlar_keys::{KeyFolder, authenticode, pcr_policy};
use ashlar_measured_boot::predict;
use ashlar_measured_boot::uki::Uki;
use std::collections::{BTreeMap, BTreeSet};

/// What is taken from the kernel's packages.
#[derive(Debug)]
pub struct Kernel {
    /// Release (`uname -r`).
    pub version: String,
    /// The compressed kernel with its EFI stub.
    pub image: Vec<u8>,
    /// systemd-stub.
    pub stub: Vec<u8>,
    /// Modules that init loads before it opens the root, dependencies first.
    pub initramfs_modules: Vec<Module>,
    /// Modules that init loads from the root, without those of the initramfs.
    pub root_modules: Vec<Module>,
}

/// Takes kernel, stub and the named modules out of the kernel's packages.
pub fn kernel(packages: &[Package], recipe: &Recipe, notes: &mut Vec<String>) -> Result<Kernel, BuildError> {
    let mut tree = crate::compose::skeleton(0)?;
    super::unpack(&mut tree, packages)?;
    let version = ashlar_boot::kernel::version(&tree)?;
    let initramfs = modules::closure(&tree, &version, &recipe.kernel.initramfs_modules)?;
    let root = modules::closure(&tree, &version, &recipe.kernel.modules)?;
    let built_in: BTreeSet<&String> = initramfs.built_in.iter().chain(&root.built_in).collect();
    if !built_in.is_empty() {
        let names: Vec<&str> = built_in.iter().map(|name| name.as_str()).collect();
        notes.push(format!("built into the kernel, so no modules: {}", names.join(", ")));
    }
    let early: BTreeSet<&str> = initramfs.modules.iter().map(|module| module.name.as_str()).collect();
    let root_modules: Vec<Module> =
        root.modules.iter().filter(|module| !early.contains(module.name.as_str())).cloned().collect();
    Ok(Kernel {
        image: ashlar_boot::kernel::image(&tree, &version)?,
        stub: ashlar_boot::kernel::stub(&tree)?,
        version,
        initramfs_modules: initramfs.modules.clone(),
        root_modules,
    })
}

/// The compressed archive of init and its modules.
pub fn initramfs(init: &[u8], kernel: &Kernel, time: i64) -> Result<Vec<u8>, BuildError> {
    Ok(ashlar_boot::initramfs::build(init, &kernel.initramfs_modules, time)?)
}

/// Builds the UKI twice: the first has no `.pcrsig`, and the PCR 11 value that it comes to is what the second
/// one's `.pcrsig` signs. That section is never measured, so both come to the same value.
pub fn uki(
    kernel: &Kernel,
    recipe: &Recipe,
    verity: &VerityRoot,
    os_release: &str,
    initramfs: &[u8],
    keys: &KeyFolder,
    time: i64,
) -> Result<Vec<u8>, BuildError> {
    let words: Vec<&str> = recipe.kernel.cmdline.split_ascii_whitespace().collect();
    let cmdline = format!("{} {verity}", words.join(" ")).trim_start().to_owned();
    let public_key = pcr_policy::public_key_pem(keys.pcr())?;
    let mut sections = vec![
        Section { name: ".osrel", data: os_release.as_bytes() },
        Section { name: ".cmdline", data: cmdline.as_bytes() },
        Section { name: ".uname", data: kernel.version.as_bytes() },
        Section { name: ".pcrpkey", data: public_key.as_bytes() },
        Section { name: ".initrd", data: initramfs },
        Section { name: ".linux", data: &kernel.image },
    ];
    let unsigned = ashlar_boot::uki::build(&kernel.stub, &sections)?;
    let phases = predict::pcr11(&Uki::parse(&unsigned)?)?;
    let at_enter_initrd = phases
        .iter()
        .find(|variant| variant.name == predict::AFTER_ENTER_INITRD)
        .ok_or(BuildError::NoPhase)?
        .value;
    let policy = pcr_policy::sign(keys.pcr(), &[BTreeMap::from([(11, at_enter_initrd)])])?;
    sections.push(Section { name: ".pcrsig", data: policy.as_bytes() });
    let with_policy = ashlar_boot::uki::build(&kernel.stub, &sections)?;
    let signed = authenticode::sign(&with_policy, keys.db(), Some(time))?;
    // What leaves this function was read back by the reader that also measures it.
    authenticode::verify(&signed, keys.db().certificate_der())?;
    Ok(signed)
}

/// What `release.json` says of the signed UKI.
pub fn describe(bytes: &[u8], artifact: Artifact) -> Result<release::Uki, BuildError> {
    let uki = Uki::parse(bytes)?;
    let text = |name: &str| -> String {
        String::from_utf8_lossy(uki.section(name).unwrap_or_default()).trim_end_matches('\0').to_owned()
    };
    Ok(release::Uki {
        authenticode: ashlar_measured_boot::authenticode::digest(bytes)?,
        kernel_authenticode: ashlar_measured_boot::authenticode::digest(
            uki.section(".linux").unwrap_or_default(),
        )?,
        stub_version: uki.stub_version().text.clone(),
        cmdline: text(".cmdline"),
        sections: uki.sections().map(|(name, data)| (name.to_owned(), Digest::of(data))).collect(),
        artifact,
    })
}
