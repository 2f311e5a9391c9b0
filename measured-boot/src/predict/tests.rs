//! Predictions against what real boots measured (`testdata/README.md` tells how the logs came about).

use super::*;
use crate::compare::{Comparison, Difference, Outcome, compare};
use crate::eventlog::{EventLog, EventType};
use crate::testing;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A captured boot.
struct Boot {
    facts: Facts,
    log: EventLog,
    pcrs: BTreeMap<u32, Digest>,
    /// PCR 11 before and after each phase, as systemd-measure of the stub's version computed it.
    systemd_measure: Vec<Digest>,
    secure: bool,
}

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Boot {
    fn read(name: &str) -> Self {
        let facts: Value = serde_json::from_slice(&file(&format!("{name}/facts.json"))).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let digest = |value: &Value| text(value).parse::<Digest>().unwrap();
        let stub_major = text(&facts["stub"]).split('.').next().unwrap().parse().unwrap();
        let sections: BTreeMap<String, Digest> =
            facts["sections"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), digest(v))).collect();
        // The small sections lie there as files, so the initrd is put together as the stub did.
        let initrd = Rules::of(stub_major).unwrap().join(|name| {
            let wanted = sections.get(name)?;
            let content = file(&format!("sections/{}", name.trim_start_matches('.')));
            assert_eq!(Digest::of(&content), *wanted, "{name}");
            Some(content)
        });
        let pcrs = String::from_utf8(file(&format!("{name}/pcrs.txt"))).unwrap();
        Self {
            facts: Facts {
                stub_major,
                authenticode: digest(&facts["authenticode"]),
                kernel_authenticode: digest(&facts["kernel_authenticode"]),
                cmdline: text(&facts["cmdline"]),
                initrd: Digest::of(initrd),
                sections,
            },
            log: EventLog::parse(&file(&format!("{name}/log.bin"))).unwrap(),
            pcrs: pcrs
                .lines()
                .map(|line| line.split_once(' ').unwrap())
                .map(|(pcr, value)| (pcr.parse().unwrap(), value.parse().unwrap()))
                .collect(),
            systemd_measure: facts["systemd_measure"].as_array().unwrap().iter().map(digest).collect(),
            secure: !name.ends_with("open"),
        }
    }

    fn all() -> impl Iterator<Item = (&'static str, Self)> {
        ["252-open", "252-secure", "257-open", "257-secure", "257-retry"]
            .into_iter()
            .map(|name| (name, Self::read(name)))
    }

    /// The variables and the authority, as the firmware logged them.
    fn keys(&self) -> (SecureBootVariables, Vec<u8>) {
        let content = |event_type, wanted: &str| {
            let event = self.log.events(7).find(|event| {
                event.event_type == event_type
                    && event.data[32..].starts_with(&utf16(wanted).collect::<Vec<_>>())
            });
            let event = event.unwrap();
            assert!(event.explain().proven);
            event.data[32 + 2 * wanted.len()..].to_vec()
        };
        let variable = |name| content(EventType::VARIABLE_DRIVER_CONFIG, name);
        let variables = SecureBootVariables {
            pk: variable("PK"),
            kek: variable("KEK"),
            db: variable("db"),
            dbx: variable("dbx"),
        };
        (variables, content(EventType::VARIABLE_AUTHORITY, "db"))
    }

    fn compare(&self, facts: &Facts) -> BTreeMap<u32, Comparison> {
        let (variables, authority) = Self::read("257-secure").keys();
        let site = Site { variables: &variables, authority: &authority };
        let prediction = facts.predict(&site).unwrap();
        let compared = compare(&prediction, &self.pcrs, Some(&self.log));
        compared.into_iter().map(|comparison| (comparison.pcr, comparison)).collect()
    }
}

#[test]
fn each_captured_log_replays_to_the_values_of_the_tpm() {
    for (name, boot) in Boot::all() {
        for (pcr, value) in boot.log.replay_sha256().unwrap() {
            assert_eq!(boot.pcrs[&pcr], value, "{name}, PCR {pcr}");
        }
    }
}

#[test]
fn all_pcrs_of_boots_with_secure_boot_are_as_predicted() {
    for (name, boot) in Boot::all().filter(|(_, boot)| boot.secure) {
        let compared = boot.compare(&boot.facts);
        assert_eq!(compared.keys().copied().collect::<Vec<_>>(), [4, 7, 9, 11, 12, 13]);
        for comparison in compared.values() {
            assert!(comparison.is_same(), "{name}: {comparison}");
        }
        let options = if name == "257-retry" { "after 1 failed boot option" } else { "first boot option" };
        assert_eq!(compared[&4].variant().unwrap().name, options);
        assert_eq!(compared[&11].variant().unwrap().name, "before init");
    }
}

#[test]
fn without_secure_boot_the_kernel_is_measured_too_and_pcr_7_names_the_variable() {
    for (name, boot) in Boot::all().filter(|(_, boot)| !boot.secure) {
        let compared = boot.compare(&boot.facts);
        assert_eq!(compared[&4].variant().unwrap().name, "first boot option, kernel measured too");
        for pcr in [9, 11, 12, 13] {
            assert!(compared[&pcr].is_same(), "{name}: {}", compared[&pcr]);
        }
        let Outcome::Different { nearest: Some(0), difference } = &compared[&7].outcome else {
            panic!("{:?}", compared[&7]);
        };
        let Difference::Event { index: 0, expected: Some(expected), seen: Some(seen) } = difference else {
            panic!("{difference:?}");
        };
        assert_eq!(expected.what, "variable SecureBoot");
        assert_eq!(seen.what, "variable SecureBoot = 0");
    }
}

/// The firmware and the kernel measured nothing else into these PCRs.
#[test]
fn the_log_has_exactly_the_predicted_digests() {
    for (name, boot) in Boot::all() {
        for (pcr, comparison) in boot.compare(&boot.facts) {
            if let Some(variant) = comparison.variant() {
                let seen: Vec<_> = boot.log.events(pcr).map(|event| event.sha256().unwrap()).collect();
                let predicted: Vec<_> = variant.events.iter().map(|event| event.digest).collect();
                assert_eq!(seen, predicted, "{name}, PCR {pcr}");
            }
        }
    }
}

#[test]
fn systemd_measure_computes_the_same_pcr_11_after_each_phase() {
    for (name, boot) in Boot::all() {
        let variants = pcr11_phases(boot.facts.stub_major, &boot.facts.sections).unwrap();
        let values: Vec<_> = variants.iter().map(|variant| variant.value).collect();
        assert_eq!(values, boot.systemd_measure, "{name}");
        assert_eq!(variants[1].name, AFTER_ENTER_INITRD);
    }
}

/// Every change must show in the right PCR, at the right event.
#[test]
fn a_changed_part_is_named() {
    let boot = Boot::read("257-secure");
    let at = |facts: &Facts, pcr: u32| match &boot.compare(facts)[&pcr].outcome {
        Outcome::Different { difference: Difference::Event { index, expected, .. }, .. } => {
            Some((*index, expected.as_ref().unwrap().what.clone()))
        }
        Outcome::Same { .. } => None,
        other => panic!("{other:?}"),
    };
    let mut facts = boot.facts.clone();
    facts.cmdline.push('x');
    facts.sections.insert(".cmdline".into(), Digest::of(&facts.cmdline));
    assert_eq!(at(&facts, 9), Some((0, "load options (command line)".into())));
    assert_eq!(at(&facts, 11), Some((5, "content of .cmdline".into())));
    assert_eq!(at(&facts, 4), None);

    let mut facts = boot.facts.clone();
    facts.initrd = Digest::of("another");
    assert_eq!(at(&facts, 9), Some((1, "initrd as handed over".into())));

    let mut facts = boot.facts.clone();
    facts.authenticode = Digest::of("another");
    assert_eq!(at(&facts, 4), Some((2, "unified kernel image".into())));

    let mut facts = boot.facts.clone();
    facts.sections.remove(".uname");
    assert_eq!(at(&facts, 11), Some((8, "name of .sbat".into())));
}

#[test]
fn what_the_log_does_not_hold_is_said_to_come_after_it() {
    let mut boot = Boot::read("257-secure");
    let phase = |value: Digest, word: &str| value.extend(Digest::of(word));
    let before = boot.pcrs[&11];
    let entered = phase(before, "enter-initrd");
    boot.pcrs.insert(11, entered);
    assert_eq!(boot.compare(&boot.facts)[&11].variant().unwrap().name, AFTER_ENTER_INITRD);
    boot.pcrs.insert(11, phase(before, "another word"));
    boot.pcrs.insert(12, phase(Digest::ZERO, "something"));
    boot.pcrs.remove(&13);
    let compared = boot.compare(&boot.facts);
    assert!(matches!(
        compared[&11].outcome,
        Outcome::Different { nearest: Some(0), difference: Difference::AfterLog { logged: 14 } }
    ));
    assert!(matches!(
        compared[&12].outcome,
        Outcome::Different { difference: Difference::AfterLog { logged: 0 }, .. }
    ));
    assert_eq!(compared[&13].outcome, Outcome::NoValue);
    let (variables, authority) = boot.keys();
    let prediction = boot.facts.predict(&Site { variables: &variables, authority: &authority }).unwrap();
    let without = compare(&prediction, &boot.pcrs, None);
    assert!(without.iter().any(
        |c| c.pcr == 11 && matches!(c.outcome, Outcome::Different { difference: Difference::NoLog, .. })
    ));
}

#[test]
fn a_whole_image_is_predicted_from_its_bytes() {
    let (variables, authority) = Boot::read("257-secure").keys();
    let site = Site { variables: &variables, authority: &authority };
    let bytes = testing::uki("257.9", &[(".cmdline", b"root=x quiet"), (".pcrsig", b"{}\0")]);
    let prediction = predict(&bytes, &site).unwrap();
    assert_eq!(prediction[&4].len(), 2 * (MAX_FAILED_BOOT_OPTIONS + 1));
    assert_eq!(prediction[&4][0].events[2].digest, authenticode::digest(&bytes).unwrap());
    assert_eq!(prediction[&4][4].events[3].digest, authenticode::digest(&testing::program()).unwrap());
    assert_eq!(
        prediction[&9][0].events[0].digest,
        Digest::of("root=x quiet\0".chars().flat_map(|c| [c as u8, 0]).collect::<Vec<_>>())
    );
    assert_eq!(prediction[&11], pcr11(&Uki::parse(&bytes).unwrap()).unwrap());
    let names: Vec<_> = prediction[&11][4].events.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(
        names.iter().step_by(2).take(5).copied().collect::<Vec<_>>(),
        ["name of .linux", "name of .osrel", "name of .cmdline", "name of .initrd", "name of .sbat"]
    );
    assert_eq!(names[10..], ["phase enter-initrd", "phase leave-initrd", "phase sysinit", "phase ready"]);
    assert_eq!(prediction[&12][0].value, Digest::ZERO);
    // The policy's signature signs PCR 11 and must not change it; PCR 9 it changes, being in the initrd.
    let unsigned = testing::uki("257.9", &[(".cmdline", b"root=x quiet")]);
    let before = predict(&unsigned, &site).unwrap();
    assert_eq!(before[&11], prediction[&11]);
    assert_ne!(before[&9], prediction[&9]);
}

#[test]
fn what_cannot_be_predicted_is_refused() {
    let (variables, authority) = Boot::read("257-secure").keys();
    let site = Site { variables: &variables, authority: &authority };
    let refused = |version, cmdline: &[u8], more: &[(&str, &[u8])]| {
        let sections: Vec<_> = [(".cmdline", cmdline)].iter().chain(more).copied().collect();
        predict(&testing::uki(version, &sections), &site).unwrap_err()
    };
    for version in ["251", "253.4", "256.7", "258", "300~rc1"] {
        let error = refused(version, b"quiet", &[]);
        assert!(error.to_string().ends_with("take one of the versions 252, 257"), "{error}");
    }
    for cmdline in [&b" quiet"[..], b"quiet ", b"quiet\n", b"a\tb", b"\xff", "ü".as_bytes(), b"quiet\0"] {
        assert_eq!(refused("257", cmdline, &[]), PredictError::Cmdline);
    }
    for name in MACHINE_DEPENDENT_NAMES {
        assert_eq!(refused("257", b"quiet", &[(name, b"x")]), PredictError::MachineDependent(name));
    }
    let bytes = testing::uki("257", &[(".cmdline", b"quiet")]);
    let other = Site { variables: &variables, authority: &authority[1..] };
    assert_eq!(predict(&bytes, &other), Err(PredictError::Authority));
    let none = Site { variables: &SecureBootVariables::default(), authority: &authority };
    assert_eq!(predict(&bytes, &none), Err(PredictError::Authority));
    let bad = SecureBootVariables { db: vec![1, 2, 3], ..SecureBootVariables::default() };
    let bad = Site { variables: &bad, authority: &authority };
    assert!(matches!(predict(&bytes, &bad), Err(PredictError::Db(_))));
}

const MACHINE_DEPENDENT_NAMES: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];
