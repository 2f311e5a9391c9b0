//! Sealing and unsealing with swtpm; what must not work; and tpm2-tools as judge of policies, names and attributes.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_tpm::seal::MAX_SECRET;
use ashlar_tpm::{
    Authorized, Error, Hierarchy, PcrKey, PcrSignatures, PcrValues, Policy, Recording, Sealed, Srk,
    StartupType, Tpm, Transport, seal, unseal,
};
use common::owner::{COUNTER, Enrolled, HANDLE, Owner, PCRS, REFERENCE, SECRET};
use common::{Swtpm, extended, run, sha256};
use std::process::Command;

/// A TPM that was set up, and an owner; none where a tool is missing.
macro_rules! fixture {
    ($swtpm:ident, $tpm:ident, $owner:ident, $enrolled:ident) => {
        let Some(mut $swtpm) = Swtpm::new() else { return };
        let Some($owner) = Owner::new() else { return };
        let mut $tpm = $swtpm.started();
        let $enrolled = Enrolled::new(&mut $tpm, &$owner);
    };
}

/// Unseals as it was sealed.
fn open<T: Transport>(tpm: &mut Tpm<T>, owner: &Owner, enrolled: &Enrolled) -> Result<Vec<u8>, Error> {
    let srk = Srk::open(tpm, HANDLE, enrolled.srk.name())?;
    let policy = owner.policy(enrolled.counter);
    let authorized = Authorized { policy: &policy, pcrs: &enrolled.values, signature: &enrolled.signature };
    unseal(tpm, &srk, &enrolled.sealed, &authorized).map(|secret| secret.to_vec())
}

/// Objects and sessions that are loaded, and sessions that are saved.
fn left<T: Transport>(tpm: &mut Tpm<T>) -> usize {
    [0x8000_0000, 0x0200_0000, 0x0300_0000].map(|first| tpm.handles(first).unwrap().len()).iter().sum()
}

#[test]
fn a_key_comes_back_in_few_commands_and_never_in_clear() {
    fixture!(swtpm, tpm, owner, enrolled);
    assert_eq!(left(&mut tpm), 0);
    let mut tpm = Tpm::new(Recording::new(tpm.into_transport()));
    let sealed = seal(&mut tpm, &enrolled.srk, enrolled.sealed.policy(), &SECRET).unwrap();
    let values = PcrValues::read(&mut tpm, &PCRS).unwrap();
    let enrolled = Enrolled { sealed: Sealed::from_bytes(&sealed.to_bytes()).unwrap(), values, ..enrolled };
    assert_eq!(enrolled.sealed, sealed);
    let before = tpm.into_transport();
    let sealing = before.frames().len();
    assert_eq!(sealing, 3); // StartAuthSession, Create; PCR_Read
    let mut tpm = Tpm::new(before);
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
    let recording = tpm.into_transport();
    // ReadPublic, then the ten that `unseal` promises.
    assert_eq!(recording.frames().len() - sealing, 11);
    for (command, answer) in recording.frames() {
        for window in SECRET.windows(8) {
            assert!(!command.windows(8).any(|bytes| bytes == window), "{}", hex::encode(command));
            assert!(!answer.windows(8).any(|bytes| bytes == window), "{}", hex::encode(answer));
        }
    }
    drop(recording);
    assert_eq!(left(&mut swtpm.tpm()), 0);
    for what in ["handles-transient", "handles-loaded-session", "handles-saved-session"] {
        let Some(text) = swtpm.tool("tpm2_getcap", &[what]) else { return };
        assert!(text.stdout.is_empty(), "{what}: {}", String::from_utf8_lossy(&text.stdout));
    }
}

#[test]
fn secrets_of_all_sizes() {
    fixture!(swtpm, tpm, owner, enrolled);
    for size in [1, 15, 16, 17, 127, MAX_SECRET] {
        let secret = vec![0x11; size];
        let sealed = seal(&mut tpm, &enrolled.srk, enrolled.sealed.policy(), &secret).unwrap();
        let again = Enrolled {
            sealed,
            srk: enrolled.srk.clone(),
            values: enrolled.values.clone(),
            signature: enrolled.signature.clone(),
            counter: enrolled.counter,
        };
        assert_eq!(open(&mut tpm, &owner, &again).unwrap(), secret);
    }
    let long = seal(&mut tpm, &enrolled.srk, enrolled.sealed.policy(), &[0; MAX_SECRET + 1]);
    assert!(matches!(long, Err(Error::SecretTooLong(129))));
}

#[test]
fn other_pcrs_do_not_open_it() {
    fixture!(swtpm, tpm, owner, enrolled);
    let signatures = owner.pcrsig(&[(&enrolled.values, Some(REFERENCE))]);
    let find = |values: &PcrValues, reference| signatures.find(&owner.key, values, reference).cloned();
    assert_eq!(find(&enrolled.values, Some(&REFERENCE)).unwrap().signature, enrolled.signature);
    assert_eq!(find(&enrolled.values, None), None);
    assert_eq!(find(&enrolled.values, Some(&[0; 32])), None);
    // The next phase, then the volume's PCR.
    for (pcr, differ) in [(11, vec![11]), (15, vec![11, 15])] {
        tpm.pcr_extend(pcr, &sha256(b"leave-initrd")).unwrap();
        let now = PcrValues::read(&mut tpm, &PCRS).unwrap();
        assert_eq!(find(&now, Some(&REFERENCE)), None);
        assert!(signatures.covers(&owner.key, &now, Some(&REFERENCE)));
        assert!(!signatures.covers(&owner.key, &now, Some(&[0; 32])));
        let error = open(&mut tpm, &owner, &enrolled).unwrap_err();
        assert!(matches!(&error, Error::PcrsDiffer(pcrs) if *pcrs == differ), "{error}");
        // The signature for the old values is none for the new ones.
        let policy = owner.policy(enrolled.counter);
        let authorized = Authorized { policy: &policy, pcrs: &now, signature: &enrolled.signature };
        let error = unseal(&mut tpm, &enrolled.srk, &enrolled.sealed, &authorized).unwrap_err();
        assert!(matches!(error, Error::Signature), "{error}");
    }
    // A PCR outside the policy does not matter.
    let mut swtpm = {
        drop(tpm);
        swtpm.restart()
    };
    let mut tpm = swtpm.started();
    tpm.pcr_extend(14, &sha256(b"audit")).unwrap();
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
    assert_eq!(left(&mut tpm), 0);
}

#[test]
fn another_key_generation_or_signature_does_not_open_it() {
    fixture!(swtpm, tpm, owner, enrolled);
    let other = Owner::new().unwrap();
    let mut refused = |key: &PcrKey, reference: Option<[u8; 32]>, counter: u64, signature: &[u8]| {
        let policy = Policy { key, policy_ref: reference, counter: Some((COUNTER, counter)) };
        let authorized = Authorized { policy: &policy, pcrs: &enrolled.values, signature };
        unseal(&mut tpm, &enrolled.srk, &enrolled.sealed, &authorized).unwrap_err()
    };
    let approved = enrolled.values.policy();
    let theirs = other.sign(&Policy::to_sign(&approved, Some(&REFERENCE)));
    let good = (&owner.key, Some(REFERENCE), enrolled.counter);
    for error in [
        refused(&other.key, good.1, good.2, &theirs),
        refused(good.0, Some([0; 32]), good.2, &owner.sign(&Policy::to_sign(&approved, Some(&[0; 32])))),
        refused(good.0, None, good.2, &owner.sign(&approved)),
        refused(good.0, good.1, good.2 + 1, &enrolled.signature),
    ] {
        assert!(matches!(error, Error::OtherPolicy { .. }), "{error}");
    }
    let mut bad = enrolled.signature.clone();
    bad[100] ^= 1;
    for signature in [
        theirs,
        owner.sign(&Policy::to_sign(&approved, Some(&[0; 32]))),
        owner.sign(&approved),
        bad,
        vec![0; 256],
        vec![1; 255],
        Vec::new(),
    ] {
        let error = refused(good.0, good.1, good.2, &signature);
        assert!(matches!(error, Error::Signature), "{error}");
    }
    // As good as the policy says, and under the policy of somebody else.
    let theirs = Enrolled::new(&mut tpm, &other);
    assert_eq!(open(&mut tpm, &other, &theirs).unwrap(), SECRET);
    assert!(matches!(open(&mut tpm, &owner, &theirs), Err(Error::OtherPolicy { .. })));
    assert_eq!(left(&mut tpm), 0);
}

#[test]
fn an_incremented_counter_ends_the_older_copy() {
    fixture!(swtpm, tpm, owner, enrolled);
    let newer = owner.policy(enrolled.counter + 1).digest();
    let newer = seal(&mut tpm, &enrolled.srk, &newer, &SECRET).unwrap();
    assert_eq!(COUNTER.increment(&mut tpm, &enrolled.srk).unwrap(), enrolled.counter + 1);
    assert_eq!(COUNTER.ensure(&mut tpm).unwrap(), enrolled.counter + 1);
    let error = open(&mut tpm, &owner, &enrolled).unwrap_err();
    let Error::CounterDiffers { wanted, found } = error else { panic!("{error}") };
    assert_eq!((wanted, found), (enrolled.counter, enrolled.counter + 1));
    let newer = Enrolled { sealed: newer, counter: enrolled.counter + 1, ..enrolled };
    assert_eq!(open(&mut tpm, &owner, &newer).unwrap(), SECRET);
    // Removed and defined again it never has an old value.
    tpm.nv_undefine(COUNTER.index()).unwrap();
    let error = open(&mut tpm, &owner, &newer).unwrap_err();
    assert!(matches!(error, Error::NoCounter { index } if index == COUNTER.index()), "{error}");
    assert!(matches!(COUNTER.read(&mut tpm), Err(Error::NoCounter { .. })));
    assert!(matches!(COUNTER.increment(&mut tpm, &newer.srk), Err(Error::NoCounter { .. })));
    assert!(COUNTER.ensure(&mut tpm).unwrap() > newer.counter);
    assert!(matches!(open(&mut tpm, &owner, &newer), Err(Error::CounterDiffers { .. })));
    assert_eq!(left(&mut tpm), 0);
    // Another kind of index in its place.
    tpm.nv_undefine(COUNTER.index()).unwrap();
    drop(tpm);
    let index = format!("0x{:x}", COUNTER.index());
    let define = format!("tpm2_nvdefine {index} -C o -s 8 -a ownerread|ownerwrite|authread|authwrite|no_da");
    if swtpm.tools(&define).is_none() {
        return;
    }
    swtpm.write("value", &newer.counter.to_be_bytes());
    swtpm.tools(&format!("tpm2_nvwrite {index} -C o -i value"));
    let mut tpm = swtpm.tpm();
    // It even has the value that is wanted.
    assert!(matches!(COUNTER.read(&mut tpm), Ok(value) if value == newer.counter));
    for error in
        [open(&mut tpm, &owner, &newer).unwrap_err(), COUNTER.increment(&mut tpm, &newer.srk).unwrap_err()]
    {
        assert!(matches!(error, Error::ForeignCounter { size: 8, .. }), "{error}");
    }
    assert!(matches!(COUNTER.ensure(&mut tpm), Err(Error::ForeignCounter { .. })));
    assert_eq!(left(&mut tpm), 0);
}

#[test]
fn a_cleared_or_another_tpm_does_not_open_it() {
    fixture!(swtpm, tpm, owner, enrolled);
    let Some(mut other) = Swtpm::new() else { return };
    let mut elsewhere = other.started();
    let error = open(&mut elsewhere, &owner, &enrolled).unwrap_err();
    assert!(matches!(error, Error::NoStorageKey { handle: HANDLE }), "{error}");
    let theirs = Srk::ensure(&mut elsewhere, HANDLE).unwrap();
    let error = open(&mut elsewhere, &owner, &enrolled).unwrap_err();
    let Error::OtherTpm { wanted, found } = error else { panic!("{error}") };
    assert_eq!((wanted, found), (*enrolled.srk.name(), *theirs.name()));
    // Without the comparison of names the object itself would not load.
    let policy = owner.policy(enrolled.counter);
    let authorized = Authorized { policy: &policy, pcrs: &enrolled.values, signature: &enrolled.signature };
    let error = unseal(&mut elsewhere, &theirs, &enrolled.sealed, &authorized).unwrap_err();
    assert!(matches!(error, Error::Integrity), "{error}");
    assert_eq!(left(&mut elsewhere), 0);
    // And with the key of ours, the answers of theirs are worth nothing.
    let error = unseal(&mut elsewhere, &enrolled.srk, &enrolled.sealed, &authorized).unwrap_err();
    assert!(matches!(error, Error::Integrity), "{error}");
    // The same machine, cleared.
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
    tpm.clear(&[]).unwrap();
    assert!(matches!(open(&mut tpm, &owner, &enrolled), Err(Error::NoStorageKey { .. })));
    assert_ne!(Srk::ensure(&mut tpm, HANDLE).unwrap().name(), enrolled.srk.name());
    assert!(matches!(open(&mut tpm, &owner, &enrolled), Err(Error::OtherTpm { .. })));
    assert!(COUNTER.ensure(&mut tpm).unwrap() > enrolled.counter);
}

#[test]
fn no_changed_byte_of_the_sealed_key_is_taken() {
    fixture!(swtpm, tpm, owner, enrolled);
    let bytes = enrolled.sealed.to_bytes();
    let policy = owner.policy(enrolled.counter);
    let authorized = Authorized { policy: &policy, pcrs: &enrolled.values, signature: &enrolled.signature };
    let mut seen = [0; 3];
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let error = Sealed::from_bytes(&changed)
            .and_then(|sealed| unseal(&mut tpm, &enrolled.srk, &sealed, &authorized).map(|_| ()))
            .unwrap_err();
        match error {
            Error::Damaged(_) => seen[0] += 1,
            Error::OtherPolicy { .. } => seen[1] += 1,
            Error::Integrity => seen[2] += 1,
            // The size of the TPM's own integrity value, inside the private area.
            Error::Refused { command: "TPM2_Load", .. } => {}
            error => panic!("byte {at}: {error}"),
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    assert!(matches!(Sealed::from_bytes(&bytes[..bytes.len() - 1]), Err(Error::Damaged(_))));
    assert!(matches!(Sealed::from_bytes(&[]), Err(Error::Damaged(_))));
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
    assert_eq!(left(&mut tpm), 0);
}

#[test]
fn what_systemd_measure_signed_opens_it() {
    fixture!(swtpm, tpm, owner, enrolled);
    drop(tpm);
    // It computes with a TPM.
    swtpm.write("linux", b"a kernel");
    let device = format!("--tpm2-device=swtpm:path={}", swtpm.folder().join("data").display());
    let mut measure = Command::new("/lib/systemd/systemd-measure");
    measure.args(["sign", "--bank=sha256", "--phase=enter-initrd", &device]);
    measure.arg(format!("--linux={}", swtpm.folder().join("linux").display()));
    measure.arg(format!("--private-key={}", owner.private().display()));
    measure.arg(format!("--public-key={}", owner.private().with_extension("pub").display()));
    let Some(output) = run(&mut measure, "systemd", &[]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let signatures = PcrSignatures::parse(&output.stdout).unwrap();
    // What the stub and the phase extend.
    let mut tpm = swtpm.tpm();
    for what in [&b".linux\0"[..], b"a kernel", b"enter-initrd"] {
        let values = PcrValues::read(&mut tpm, &[11]).unwrap();
        assert!(signatures.find(&owner.key, &values, None).is_none());
        tpm.pcr_extend(11, &sha256(what)).unwrap();
    }
    let values = PcrValues::read(&mut tpm, &[11]).unwrap();
    let entry = signatures.find(&owner.key, &values, None).unwrap();
    let policy = Policy { key: &owner.key, policy_ref: None, counter: None };
    let sealed = seal(&mut tpm, &enrolled.srk, &policy.digest(), &SECRET).unwrap();
    let authorized = Authorized { policy: &policy, pcrs: &values, signature: &entry.signature };
    assert_eq!(**unseal(&mut tpm, &enrolled.srk, &sealed, &authorized).unwrap(), SECRET);
}

#[test]
fn larger_keys_sign_as_well() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let Some(owner) = Owner::with_bits(3072) else { return };
    let mut tpm = swtpm.started();
    let enrolled = Enrolled::new(&mut tpm, &owner);
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
}

#[test]
fn power_cuts_and_the_lockout_do_not_keep_it_closed() {
    fixture!(swtpm, tpm, owner, enrolled);
    drop(tpm);
    // The first wrong authorisation locks.
    if swtpm.tools("tpm2_dictionarylockout --setup-parameters -n 1 -t 10000 -l 10000").is_none() {
        return;
    }
    for _ in 0..4 {
        // Killed in the middle, with the policy session open.
        swtpm = swtpm.restart();
        assert_eq!(open(&mut swtpm.started(), &owner, &enrolled).unwrap(), SECRET);
    }
    let mut tpm = swtpm.tpm();
    tpm.change_authorization(Hierarchy::Lockout, &[], b"lockout").unwrap();
    assert!(matches!(tpm.clear(b"wrong"), Err(Error::Refused { .. })));
    let error = tpm.clear(b"lockout").unwrap_err();
    assert!(matches!(error, Error::Lockout { command: "TPM2_Clear" }), "{error}");
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
    assert_eq!(COUNTER.increment(&mut tpm, &enrolled.srk).unwrap(), enrolled.counter + 1);
}

#[test]
fn an_authorisation_of_the_owner_keeps_nothing_closed_that_is_there() {
    fixture!(swtpm, tpm, owner, enrolled);
    tpm.change_authorization(Hierarchy::Owner, &[], b"owner").unwrap();
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
    assert_eq!(Srk::ensure(&mut tpm, HANDLE).unwrap(), enrolled.srk);
    assert_eq!(COUNTER.ensure(&mut tpm).unwrap(), enrolled.counter);
    // New things need the owner.
    let error = Srk::ensure(&mut tpm, HANDLE + 1).unwrap_err();
    assert!(error.to_string().contains("authorisation value is wrong"), "{error}");
    assert!(tpm.nv_undefine(COUNTER.index()).is_err());
    assert_eq!(left(&mut tpm), 0);
    let resets = tpm.clock().unwrap().resets;
    tpm.shutdown(StartupType::Clear).unwrap();
    drop(tpm);
    let mut swtpm = swtpm.restart();
    let mut tpm = swtpm.started();
    assert_eq!(tpm.clock().unwrap().resets, resets + 1);
    assert_eq!(open(&mut tpm, &owner, &enrolled).unwrap(), SECRET);
}

#[test]
fn a_foreign_storage_key_is_refused_by_name() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    drop(swtpm.started());
    for (algorithm, handle, why) in [
        ("rsa2048:aes128cfb", "0x81000001", "not on an elliptic curve"),
        ("ecc384:aes128cfb", "0x81000002", "another curve"),
        // Without noDA.
        ("ecc256:aes128cfb", "0x81000003", "its attributes are different"),
    ] {
        let create = format!("tpm2_createprimary -C o -G {algorithm} -c primary.ctx");
        if swtpm.tools(&create).is_none() {
            return;
        }
        swtpm.tools(&format!("tpm2_evictcontrol -C o -c primary.ctx {handle}"));
        let at = u32::from_str_radix(&handle[2..], 16).unwrap();
        let error = Srk::ensure(&mut swtpm.tpm(), at).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(matches!(error, Error::ForeignStorageKey { handle, .. } if handle == at));
    }
    // As systemd makes it: the coordinates of the template are empty, so it is another key, and as good.
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    swtpm.tools(&format!("tpm2_createprimary -C o -G ecc256:aes128cfb -a {attributes} -c primary.ctx"));
    swtpm.tools("tpm2_evictcontrol -C o -c primary.ctx 0x81000004");
    assert!(Srk::ensure(&mut swtpm.tpm(), 0x8100_0004).is_ok());
}

#[test]
fn tpm2_tools_compute_the_same_policy_and_show_the_attributes() {
    fixture!(swtpm, tpm, owner, enrolled);
    tpm.pcr_extend(7, &sha256(b"secure boot")).unwrap();
    let values = PcrValues::read(&mut tpm, &PCRS).unwrap();
    assert_eq!(values.get(7), Some(&extended([0; 32], sha256(b"secure boot"))));
    drop(tpm);
    assert_eq!(*owner.key.fingerprint(), owner.fingerprint());
    let index = format!("0x{:x}", COUNTER.index());
    let public = owner.key.public();
    swtpm.write("key.pub", &[&u16::try_from(public.len()).unwrap().to_be_bytes()[..], public].concat());
    swtpm.write("ref", &REFERENCE);
    swtpm.write("signed", &Policy::to_sign(&values.policy(), Some(&REFERENCE)));
    swtpm.write("sig", &owner.sign(&Policy::to_sign(&values.policy(), Some(&REFERENCE))));
    swtpm.write("counter", &enrolled.counter.to_be_bytes());
    let sealed = enrolled.sealed.to_bytes();
    let public = usize::from(u16::from_be_bytes([sealed[0], sealed[1]])) + 2;
    swtpm.write("sealed.pub", &sealed[..public]);
    swtpm.write("sealed.priv", &sealed[public..]);
    if swtpm.tools("tpm2_loadexternal -C o -u key.pub -c key.ctx -n key.name").is_none() {
        return;
    }
    assert_eq!(swtpm.file("key.name"), owner.key.name().as_bytes());
    swtpm.tools("tpm2_verifysignature -c key.ctx -g sha256 -m signed -s sig -f rsassa -t ticket");
    swtpm.tools("tpm2_startauthsession --policy-session -S session.ctx");
    swtpm.tools("tpm2_policypcr -S session.ctx -l sha256:7,11,12,13,15 -L policy");
    assert_eq!(swtpm.file("policy"), values.policy());
    swtpm.tools("tpm2_policyauthorize -S session.ctx -i policy -q ref -n key.name -t ticket -L authorized");
    let authorized = Policy { counter: None, ..owner.policy(enrolled.counter) };
    assert_eq!(swtpm.file("authorized"), authorized.digest());
    swtpm.tools(&format!("tpm2_policynv -S session.ctx -i counter -C {index} {index} eq -L whole"));
    assert_eq!(swtpm.file("whole"), owner.policy(enrolled.counter).digest());
    // They unseal what we sealed.
    swtpm.tools("tpm2_load -C 0x81000001 -u sealed.pub -r sealed.priv -c sealed.ctx");
    let secret = swtpm.tool("tpm2_unseal", &["-c", "sealed.ctx", "-p", "session:session.ctx"]).unwrap();
    assert_eq!(secret.stdout, SECRET);
    swtpm.tools("tpm2_flushcontext session.ctx");
    // What they say about our objects.
    let text = swtpm.tools("tpm2_readpublic -c 0x81000001 -n srk.name").unwrap();
    assert!(
        text.contains("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"),
        "{text}"
    );
    assert_eq!(swtpm.file("srk.name"), enrolled.srk.name().as_bytes());
    let text = swtpm.tools("tpm2_readpublic -c sealed.ctx").unwrap();
    assert!(text.contains("value: fixedtpm|fixedparent|adminwithpolicy|noda\n"), "{text}");
    let text = swtpm.tools(&format!("tpm2_nvreadpublic {index}")).unwrap();
    assert!(text.contains("no_da"), "{text}");
    assert!(text.contains("nt=0x1") && text.contains("written"), "{text}");
    assert!(text.contains(&COUNTER.name().to_string()), "{text}");
}

#[test]
fn all_pcrs_are_read_together() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.started();
    for pcr in [0, 7, 9, 15, 23] {
        tpm.pcr_extend(pcr, &sha256(&pcr.to_be_bytes())).unwrap();
    }
    let all: Vec<u32> = (0..24).rev().collect();
    let together = tpm.pcr_read_together(&all).unwrap();
    let one_by_one = (0..24).zip(tpm.pcr_read(&(0..24).collect::<Vec<_>>()).unwrap());
    assert_eq!(together, one_by_one.collect::<Vec<_>>());
    assert_eq!(tpm.pcr_read_together(&[]).unwrap(), []);
    assert!(matches!(tpm.pcr_read_together(&[24]), Err(Error::NoSuchPcr(24))));
}
