//! Our commands against swtpm, an emulated TPM 2.0 that we did not write, and the results against tpm2-tools.
//! Skips where swtpm (package swtpm) or tpm2-tools (package tpm2-tools) is not installed.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_tpm::{Error, Recording, Replay, Socket, StartupType, Tpm, Transport, TransportError};
use common::{DEADLINE, Data, Swtpm, ZERO, extended, sha256};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What every start does: returns PCR 11 after two phase words.
fn session<T: Transport>(tpm: &mut Tpm<T>) -> [u8; 32] {
    tpm.startup(StartupType::Clear).unwrap();
    tpm.self_test(true).unwrap();
    tpm.require_sha256().unwrap();
    assert_eq!(tpm.pcr_read(&[11, 0, 15, 16, 23]).unwrap(), [ZERO; 5]);
    // Reserved for a dynamic launch that did not happen.
    assert_eq!(tpm.pcr_read(&[17, 22]).unwrap(), [[0xff; 32]; 2]);
    let mut value = ZERO;
    for word in ["enter-initrd", "leave-initrd"] {
        let digest = sha256(word.as_bytes());
        let done = tpm.pcr_extend_checked(11, &digest, |before| extended(before, digest)).unwrap();
        assert_eq!((done.before, done.after), (value, extended(value, digest)));
        value = done.after;
    }
    assert_eq!(tpm.pcr_read_one(11).unwrap(), value);
    assert_eq!(tpm.pcr_read_one(12).unwrap(), ZERO);
    value
}

#[test]
fn a_session_and_tpm2_tools_agree() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.tpm();
    // Nothing but TPM2_Startup works first, and the error says so.
    let error = tpm.pcr_read_one(0).unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, .. } if code.name() == Some("TPM_RC_INITIALIZE")),
        "{error}"
    );
    let value = session(&mut tpm);
    // A second start is no error and changes nothing.
    tpm.startup(StartupType::Clear).unwrap();
    assert_eq!(tpm.pcr_read_one(11).unwrap(), value);
    drop(tpm);
    let Some(output) = swtpm.tool("tpm2_pcrread", &["sha256:11,17"]) else { return };
    let printed = String::from_utf8(output.stdout).unwrap().to_lowercase();
    assert!(printed.contains(&hex::encode(value)), "{printed}");
    assert!(printed.contains(&"ff".repeat(32)), "{printed}");
    // What the tools extend we read.
    let digest = sha256(b"by the tools");
    swtpm.tool("tpm2_pcrextend", &[&format!("14:sha256={}", hex::encode(digest))]);
    assert_eq!(swtpm.tpm().pcr_read_one(14).unwrap(), extended(ZERO, digest));
}

#[test]
fn banks_properties_and_random_bytes() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    tpm.self_test(false).unwrap();
    let banks = tpm.pcr_banks().unwrap();
    let sha256 = banks.iter().find(|bank| bank.name() == "sha256").unwrap();
    assert_eq!(sha256.pcrs, (0..24).collect::<Vec<_>>());
    // TPM_PT_FAMILY_INDICATOR: "2.0" and a NUL.
    assert_eq!(tpm.properties(0x100, 1).unwrap(), [(0x100, 0x322e_3000)]);
    assert!(tpm.properties(0x100, 64).unwrap().len() > 10);
    let (one, two) = (tpm.random(100).unwrap(), tpm.random(100).unwrap());
    assert_eq!((one.len(), two.len(), tpm.random(0).unwrap().len()), (100, 100, 0));
    assert_ne!(one, two);
    assert!(one.iter().any(|byte| *byte != 0));
}

#[test]
fn what_the_tpm_refuses_is_named() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    let error = tpm.pcr_extend(17, &ZERO).unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, .. } if code.name() == Some("TPM_RC_LOCALITY")),
        "{error}"
    );
    assert!(matches!(tpm.pcr_extend(24, &ZERO), Err(Error::NoSuchPcr(24))));
    // The connection is still in step.
    assert_eq!(tpm.pcr_read_one(17).unwrap(), [0xff; 32]);
}

#[test]
fn an_extension_beside_ours_is_noticed() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    let digest = sha256(b"ours");
    let result = tpm.pcr_extend_checked(14, &digest, |before| extended(extended(before, digest), ZERO));
    assert!(matches!(result, Err(Error::ReadBack { pcr: 14, .. })), "{result:?}");
}

#[test]
fn a_restart_clears_the_pcrs_unless_the_state_was_saved() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    tpm.pcr_extend(11, &sha256(b"x")).unwrap();
    tpm.shutdown(StartupType::State).unwrap();
    drop(tpm);
    let mut swtpm = swtpm.restart();
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::State).unwrap();
    assert_eq!(tpm.pcr_read_one(11).unwrap(), extended(ZERO, sha256(b"x")));
    tpm.shutdown(StartupType::Clear).unwrap();
    drop(tpm);
    let mut swtpm = swtpm.restart();
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    assert_eq!(tpm.pcr_read_one(11).unwrap(), ZERO);
}

#[test]
fn a_tpm_without_sha256_is_refused_with_its_banks() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    drop(tpm);
    let none = ["sha1:all+sha256:none+sha384:none+sha512:none"];
    if swtpm.tool("tpm2_pcrallocate", &none).is_none() {
        return;
    }
    swtpm.tpm().shutdown(StartupType::Clear).unwrap();
    let mut swtpm = swtpm.restart();
    let mut tpm = swtpm.tpm();
    tpm.startup(StartupType::Clear).unwrap();
    let error = tpm.require_sha256().unwrap_err();
    assert!(matches!(&error, Error::NoSha256Bank { active } if active == "sha1"), "{error}");
    assert!(matches!(tpm.pcr_read_one(11), Err(Error::NoSha256Bank { .. })));
}

#[test]
fn a_recorded_session_replays_and_another_does_not() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = Tpm::new(Recording::new(swtpm.tpm().into_transport()));
    let value = session(&mut tpm);
    let frames = tpm.into_transport().frames().to_vec();
    drop(swtpm);
    assert!(frames.len() > 10);
    let mut replayed = Tpm::new(Replay::new(frames.clone()));
    assert_eq!(session(&mut replayed), value);
    // The recording has an end, and takes no other command.
    assert!(matches!(
        replayed.pcr_read_one(11),
        Err(Error::Transport { source: TransportError::Replay(step), .. }) if step == frames.len()
    ));
    let mut other = Tpm::new(Replay::new(frames));
    let error = other.startup(StartupType::State).unwrap_err();
    assert!(matches!(error, Error::Transport { source: TransportError::Replay(0), .. }), "{error}");
}

#[test]
fn tcp_works_as_well_and_a_tpm_that_goes_is_an_error() {
    // A port that was free a moment ago; another program may take it, then the next is tried.
    for _ in 0..5 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let Some(mut swtpm) = Swtpm::start(tempfile::tempdir().unwrap(), &Data::Tcp(port)) else { return };
        // Its control channel is there as soon as it listens.
        let start = Instant::now();
        while !swtpm.folder().join("data.ctrl").exists()
            && swtpm.ended().is_none()
            && start.elapsed() < DEADLINE
        {
            sleep(Duration::from_millis(20));
        }
        if swtpm.ended().is_some() {
            continue;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut tpm = Tpm::new(swtpm.connect(|| Socket::connect_tcp(address)));
        session(&mut tpm);
        swtpm.stop();
        assert!(matches!(tpm.random(8), Err(Error::Transport { source: TransportError::Io(_), .. })));
        assert!(matches!(Socket::connect_tcp(address), Err(TransportError::Open { .. })));
        return;
    }
    panic!("no port was free");
}
