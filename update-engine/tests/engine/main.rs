//! The whole engine with a real repository on a real web server; disks, firmware and PID 1 are models.
#![allow(clippy::unwrap_used)] // a test fails by it

mod lab;
mod lock;

use ashlar_channel::Document;
use ashlar_image::control::Request;
use ashlar_image::digest::Digest;
use ashlar_image::layout::Slot;
use ashlar_image::release::Release;
use ashlar_image::update::{Choice, UpdatePhase, UpdateReply};
use ashlar_slots::model::{Machine, Recorder, power_cuts};
use ashlar_update::engine::{Command, Engine, Shared};
use lab::{Lab, clock, content, late};
use std::io::Read;
use std::sync::{Arc, Mutex};

#[test]
fn a_release_is_staged_with_and_without_ranges() {
    let (one, two) = (content(1), content(2));
    for ranges in [true, false] {
        let lab = Lab::new(&one, &two, ranges, |_, _| {});
        let (plan, _) = lab.order(Command::Plan(Choice::default()), clock);
        let Ok(UpdateReply::Plan(plan)) = plan else { panic!("{plan:?}") };
        let root = plan.parts.iter().find(|part| part.part == "root").unwrap();
        assert!(root.fetch <= 22 && root.copy >= 270, "what has moved is copied: {plan:?}");
        assert!(lab.recorder.steps().is_empty(), "a plan writes nothing");
        let (result, shared) = lab.stage();
        result.unwrap();
        assert_eq!(shared.status().phase, UpdatePhase::Staged);
        let mut machine = lab.recorder.machine();
        for (role, part) in &two.parts {
            assert!(machine.disks[&(Slot::B, *role)].starts_with(part), "{role:?}");
        }
        let signed = [&one, &two].map(|content| content.release.uki.artifact.sha256);
        assert_eq!(machine.start(&signed), Some(Slot::B), "once");
        assert_eq!(machine.start(&signed), Some(Slot::A), "and back");
        // The machine has restarted, and the old release runs: it has failed.
        let again = Lab { folder: lab.folder, recorder: Recorder::new(machine), init: lab.init };
        let (_, shared) = again.order(Command::Check, clock);
        let barred = shared.status().barred;
        assert_eq!((barred[0].version.as_str(), barred[0].check.as_str()), ("1.2", "start"));
        let (result, _) = again.stage();
        assert!(result.unwrap_err().to_string().contains("has failed on this machine"));
    }
}

#[test]
fn a_bundle_holds_some_releases_of_its_channel() {
    let (one, two) = (content(1), content(2));
    let lab = Lab::new(&one, &two, true, |document, _| {
        // Newer, and not in the bundle.
        let newer = ashlar_channel::Offer { version: "1.3".into(), ..document.releases[0].clone() };
        document.releases.push(newer);
    });
    let bundle = lab.folder.path().join("bundle.tar");
    let pack = |what: &str| {
        let channel = lab.folder.path().join("channel");
        let script = format!("cd {}; tar -cf {} {what}", channel.display(), bundle.display());
        assert!(std::process::Command::new("sh").args(["-ec", &script]).status().unwrap().success());
    };
    pack("$(find * -type f -not -path '*/releases/*')");
    let (result, _) = lab.order(Command::Bundle(bundle.clone(), false), clock);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("holds neither release 1.3 nor another newer one"), "{error}");
    pack("$(find * -type f)");
    let (result, shared) = lab.order(Command::Bundle(bundle.clone(), false), clock);
    result.unwrap();
    assert_eq!(shared.status().target.as_deref(), Some("1.2"));
    let machine = lab.recorder.machine();
    assert!(
        machine.disks[&(Slot::B, ashlar_image::layout::Role::Root)]
            .starts_with(&two.parts[&ashlar_image::layout::Role::Root])
    );
}

#[test]
fn nothing_restarts_while_the_configuration_is_unknown() {
    let (one, two) = (content(1), content(2));
    let mut lab = Lab::new(&one, &two, true, |_, _| {});
    // A configuration that this program cannot read may name a lock.
    for (configuration, restarts) in
        [("serial = \"none\"".to_owned(), false), (lab.init.configuration.clone(), true)]
    {
        let told = Mutex::default();
        lab.init = Arc::new(lab::Init { status: lab.init.status.clone(), configuration, told });
        lab.order(Command::Reboot("by hand".into()), clock).0.unwrap();
        let hardware = lab::Model { recorder: lab.recorder.clone(), running: Slot::A };
        let (state, shared) = (lab.folder.path().join("state"), Arc::new(Shared::default()));
        let mut engine = Engine::new(Box::new(hardware), lab.init.clone(), &state, shared, clock, 0).unwrap();
        engine.tick();
        let told = lab.init.told.lock().unwrap().clone();
        assert_eq!(told.contains(&Request::Reboot), restarts, "{told:?}");
    }
}

#[test]
fn what_is_refused() {
    let (one, two) = (content(1), content(2));
    let lab = |change: fn(&mut Document, &mut Vec<u8>)| Lab::new(&one, &two, true, change);
    lab(|_, json| json.push(b' ')).refused("its SHA-256 is", clock);
    lab(|document, _| document.image_id = "other".into())
        .refused("the channel is for the image `other`", clock);
    lab(|document, _| document.architecture = "aarch64".into()).refused("the channel is for aarch64", clock);
    lab(|document, _| document.releases[0].withdrawn = Some("loses data".into()))
        .refused("loses data", clock);
    lab(|document, json| {
        let text = String::from_utf8(json.clone()).unwrap().replace("\"host\"", "\"else\"");
        *json = text.into_bytes();
        document.releases[0].release = Digest::of(&*json);
    })
    .refused("it is one of the image `else`", clock);
    lab(|document, json| {
        let mut release: Release = serde_json::from_slice(json).unwrap();
        release.slot.root.size = 5 << 30;
        *json = serde_json::to_vec(&release).unwrap();
        document.releases[0].release = Digest::of(&*json);
    })
    .refused("has 5368709120 bytes", clock);
    lab(|_, _| {}).refused("the timestamp metadata expired", late);
    // A mirror that gives other bytes than were signed.
    let damaged = lab(|_, _| {});
    let folder = damaged.folder.path().join("channel/targets/releases/host/1.2");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "frames") {
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            let middle = bytes.len() / 40;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    damaged.refused("is not what was signed", clock);
}

#[test]
fn the_power_goes_at_any_moment_of_a_whole_update() {
    let (one, two) = (content(1), content(2));
    let lab = Lab::new(&one, &two, true, |_, _| {});
    let before = lab.recorder.machine();
    lab.stage().0.unwrap();
    let signed = [&one, &two].map(|content| content.release.uki.artifact.sha256);
    let whole = |machine: &Machine, slot: Slot| {
        [&one, &two].into_iter().any(|content| {
            content.parts.iter().all(|(role, part)| machine.disks[&(slot, *role)].starts_with(part))
        })
    };
    let states = power_cuts(&before, &lab.recorder.steps(), 6, 0xE41, |step, state| {
        let mut machine = state.clone();
        for start in 1..=2 {
            let slot = machine
                .start(&signed)
                .unwrap_or_else(|| panic!("step {step}: nothing starts at start {start}"));
            assert!(whole(&machine, slot), "step {step}: slot {slot:?} starts and is not whole");
        }
        assert!(!machine.loads(Slot::B, &signed) || whole(&machine, Slot::B), "step {step}");
    });
    println!("{states} states of a whole update, each starts whole");
    assert!(states > 1000, "{states}");
}
