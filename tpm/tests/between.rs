//! Somebody between us and the TPM, who changes commands and answers, answers in the TPM's place, or extends PCRs.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_tpm::command::Code;
use ashlar_tpm::{Authorized, Error, Socket, Srk, Tpm, Transport, seal, unseal};
use common::owner::{COUNTER, Enrolled, HANDLE, Owner, SECRET};
use common::{Between, Swtpm, code, extend};
use std::os::unix::net::UnixStream;

/// One unsealing through `between`.
fn open(between: Between<'_>, owner: &Owner, enrolled: &Enrolled) -> Result<Vec<u8>, Error> {
    let mut tpm = Tpm::new(between);
    let srk = Srk::open(&mut tpm, HANDLE, enrolled.srk.name())?;
    let policy = owner.policy(enrolled.counter);
    let authorized = Authorized { policy: &policy, pcrs: &enrolled.values, signature: &enrolled.signature };
    unseal(&mut tpm, &srk, &enrolled.sealed, &authorized).map(|secret| secret.to_vec())
}

/// Removes what somebody who lies about handles leaves behind.
fn flush<T: Transport>(tpm: &mut Tpm<T>) {
    for first in [0x8000_0000, 0x0200_0000, 0x0300_0000] {
        for handle in tpm.handles(first).unwrap() {
            tpm.flush(handle).unwrap();
        }
    }
}

fn enrolled() -> Option<(Swtpm, Owner, Enrolled)> {
    let mut swtpm = Swtpm::new()?;
    let owner = Owner::new()?;
    let enrolled = Enrolled::new(&mut swtpm.started(), &owner);
    Some((swtpm, owner, enrolled))
}

/// A success without parameters.
fn success(sessions: bool) -> Vec<u8> {
    let mut answer = vec![0x80, if sessions { 2 } else { 1 }, 0, 0, 0, 10, 0, 0, 0, 0];
    if sessions {
        answer[5] = 19;
        answer.extend([0, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
    answer
}

#[test]
fn no_changed_byte_of_an_answer_gives_another_secret() {
    let Some((mut swtpm, owner, enrolled)) = enrolled() else { return };
    // How long each answer is.
    let mut lengths = Vec::new();
    let record = Between::answers(swtpm.unix(), |_, answer| lengths.push(answer.len()));
    assert_eq!(open(record, &owner, &enrolled).unwrap(), SECRET);
    assert_eq!(lengths.len(), 11);
    for (step, length) in lengths.iter().enumerate() {
        for at in 0..*length {
            let (mut count, mut which) = (0, 0);
            let change = Between::answers(swtpm.unix(), |code, answer| {
                if count == step {
                    which = code;
                    answer[at] ^= 0x01;
                }
                count += 1;
            });
            let result = open(change, &owner, &enrolled);
            let place = format!("byte {at} of the answer to 0x{which:x}: {result:?}");
            match &result {
                Ok(secret) => assert_eq!(*secret, SECRET, "{place}"),
                Err(_) => flush(&mut swtpm.tpm()),
            }
            if which == Code::Unseal as u32 {
                // Behind the header and the size of the parameters everything is covered by the HMAC, or is it.
                match result.unwrap_err() {
                    Error::Forged { command: "TPM2_Unseal" } => assert!(at >= 10, "{place}"),
                    Error::Malformed { .. } | Error::Refused { .. } => {
                        let parameters = usize::from(u16::from_be_bytes([0, 64])) + 2;
                        let sizes = [14 + parameters, 14 + parameters + 1, length - 34, length - 33];
                        assert!(at < 14 || sizes.contains(&at), "{place}");
                    }
                    error => panic!("{place}: {error}"),
                }
            } else if which == Code::ReadPublic as u32 && at >= 10 {
                // The name is recomputed; but the qualified name, at the end, is not used.
                assert!(result.is_err() || at >= length - 34, "{place}");
            }
        }
    }
    flush(&mut swtpm.tpm());
    assert_eq!(open(Between::answers(swtpm.unix(), |_, _| ()), &owner, &enrolled).unwrap(), SECRET);
}

#[test]
fn no_changed_byte_of_a_command_gives_another_secret() {
    let Some((mut swtpm, owner, enrolled)) = enrolled() else { return };
    // Only what carries a secret or leads to it: the session, the policy's last steps, the unsealing.
    for wanted in [Code::StartAuthSession, Code::PolicyNv, Code::PolicyAuthorize, Code::Unseal] {
        let mut length = 0;
        let record = Between::commands(swtpm.unix(), |_, frame| {
            if code(frame) == wanted as u32 {
                length = frame.len();
            }
            None
        });
        assert_eq!(open(record, &owner, &enrolled).unwrap(), SECRET);
        for at in 10..length {
            let change = Between::commands(swtpm.unix(), |_, frame| {
                if code(frame) == wanted as u32 {
                    frame[at] ^= 0x01;
                }
                None
            });
            match open(change, &owner, &enrolled) {
                // The attributes of an authorisation value mean nothing.
                Ok(secret) => assert_eq!((wanted, at, &secret[..]), (Code::PolicyNv, 32, &SECRET[..])),
                // The TPM saw it by the HMAC.
                Err(Error::ForgedCommand { command: "TPM2_Unseal" }) => {}
                Err(error) => {
                    // Behind header, handle and sizes come the nonce, the attributes and the HMAC.
                    let covered = at >= 24 && !(57..59).contains(&at);
                    assert_ne!((wanted, covered), (Code::Unseal, true), "byte {at}: {error}");
                }
            }
            flush(&mut swtpm.tpm());
        }
    }
}

#[test]
fn steps_that_did_not_happen_are_noticed() {
    let Some((mut swtpm, owner, enrolled)) = enrolled() else { return };
    for (skipped, sessions) in
        [(Code::PolicyPcr, false), (Code::PolicyAuthorize, false), (Code::PolicyNv, true)]
    {
        let skip = Between::commands(swtpm.unix(), |_, frame| {
            (code(frame) == skipped as u32).then(|| success(sessions))
        });
        let error = open(skip, &owner, &enrolled).unwrap_err();
        // Without the first the TPM itself finds that another policy was approved than the session has.
        let noticed = match skipped {
            Code::PolicyPcr => matches!(error, Error::Refused { command: "TPM2_PolicyAuthorize", .. }),
            _ => matches!(error, Error::PolicyNotSatisfied),
        };
        assert!(noticed, "{error}");
    }
    // An increment that somebody only pretends: with no HMAC, and with an old answer.
    for recorded in [false, true] {
        let mut old = None;
        let mut tpm = Tpm::new(Between::answers(swtpm.unix(), |number, answer| {
            if number == Code::NvIncrement as u32 {
                old = Some(answer.clone());
            }
        }));
        let value = COUNTER.increment(&mut tpm, &enrolled.srk).unwrap();
        drop(tpm);
        let answer = if recorded { old.unwrap() } else { success(true) };
        let mut tpm = Tpm::new(Between::commands(swtpm.unix(), |_, frame| {
            (code(frame) == Code::NvIncrement as u32).then(|| answer.clone())
        }));
        let error = COUNTER.increment(&mut tpm, &enrolled.srk).unwrap_err();
        assert!(matches!(error, Error::Forged { command: "TPM2_NV_Increment" }), "{error}");
        assert_eq!(COUNTER.read(&mut tpm).unwrap(), value);
        drop(tpm);
        assert!(swtpm.tpm().handles(0x0200_0000).unwrap().is_empty());
    }
}

#[test]
fn a_key_of_somebody_else_in_place_of_the_storage_root_key_is_refused() {
    let Some((mut swtpm, owner, enrolled)) = enrolled() else { return };
    let Some(mut other) = Swtpm::new() else { return };
    Srk::ensure(&mut other.started(), HANDLE).unwrap();
    // Everything goes to another TPM, which is genuine.
    let mut theirs = other.unix();
    let relay = Between::commands(swtpm.unix(), |_, frame| Some(theirs.transact(frame).unwrap()));
    assert!(matches!(open(relay, &owner, &enrolled), Err(Error::OtherTpm { .. })));
    // Only what names the key comes from the right one.
    drop(theirs);
    let mut theirs = other.unix();
    let relay = Between::commands(swtpm.unix(), |_, frame| {
        (code(frame) != Code::ReadPublic as u32).then(|| theirs.transact(frame).unwrap())
    });
    assert!(matches!(open(relay, &owner, &enrolled), Err(Error::Integrity)));
    // And a secret that is sealed is only sealed by the TPM that has the key.
    drop(theirs);
    let mut theirs = other.unix();
    let relay = Between::commands(swtpm.unix(), |_, frame| Some(theirs.transact(frame).unwrap()));
    let mut tpm = Tpm::new(relay);
    let error = seal(&mut tpm, &enrolled.srk, enrolled.sealed.policy(), &SECRET).unwrap_err();
    assert!(matches!(error, Error::Refused { command: "TPM2_Create", .. }), "{error}");
}

#[test]
fn an_extension_meanwhile_only_costs_time() {
    let Some((mut swtpm, owner, enrolled)) = enrolled() else { return };
    // The audit log extends PCR 14 at each of the steps.
    for when in [Code::PolicyPcr, Code::PolicyAuthorize, Code::PolicyNv, Code::Unseal] {
        let (mut extended, mut sessions) = (false, 0);
        let between = Between::commands(swtpm.unix(), |tpm: &mut Socket<UnixStream>, frame| {
            sessions += u32::from(code(frame) == Code::StartAuthSession as u32);
            if code(frame) == when as u32 && !extended {
                extended = true;
                extend(tpm, 14);
            }
            None
        });
        assert_eq!(open(between, &owner, &enrolled).unwrap(), SECRET);
        // Before the policy on PCRs it does not matter.
        assert_eq!(sessions, if when == Code::PolicyPcr { 1 } else { 2 }, "{}", when.name());
        let mut tpm = swtpm.tpm();
        assert!(tpm.handles(0x0200_0000).unwrap().is_empty() && tpm.handles(0x8000_0000).unwrap().is_empty());
    }
    // Somebody who never stops.
    let mut tries = 0;
    let between = Between::commands(swtpm.unix(), |tpm: &mut Socket<UnixStream>, frame| {
        if code(frame) == Code::Unseal as u32 {
            tries += 1;
            extend(tpm, 10);
        }
        None
    });
    let error = open(between, &owner, &enrolled).unwrap_err();
    assert!(matches!(error, Error::PcrsDoNotRest), "{error}");
    assert_eq!(tries, 8);
    // A PCR of the policy.
    let between = Between::commands(swtpm.unix(), |tpm: &mut Socket<UnixStream>, frame| {
        if code(frame) == Code::Unseal as u32 {
            extend(tpm, 15);
        }
        None
    });
    let error = open(between, &owner, &enrolled).unwrap_err();
    assert!(matches!(&error, Error::PcrsDiffer(pcrs) if *pcrs == [15]), "{error}");
    let mut tpm = swtpm.tpm();
    assert!(tpm.handles(0x0200_0000).unwrap().is_empty() && tpm.handles(0x8000_0000).unwrap().is_empty());
}

#[test]
fn what_is_not_there_is_told_whatever_code_a_tpm_has_for_it() {
    let Some(mut swtpm) = Swtpm::new() else { return };
    let mut tpm = swtpm.started();
    assert_eq!(Srk::find(&mut tpm, HANDLE).unwrap(), None);
    assert_eq!(tpm.nv_read_public(COUNTER.index()).unwrap(), None);
    drop(tpm);
    // TPM_RC_VALUE in place of TPM_RC_HANDLE, and in place of a success.
    let value = |number: u32, answer: &mut Vec<u8>| {
        if [Code::ReadPublic as u32, Code::NvReadPublic as u32].contains(&number) {
            *answer = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 0x01, 0x84];
        }
    };
    let mut tpm = Tpm::new(Between::answers(swtpm.unix(), value));
    assert_eq!(Srk::find(&mut tpm, HANDLE).unwrap(), None);
    assert_eq!(tpm.nv_read_public(COUNTER.index()).unwrap(), None);
    drop(tpm);
    let mut tpm = swtpm.tpm();
    Srk::ensure(&mut tpm, HANDLE).unwrap();
    COUNTER.ensure(&mut tpm).unwrap();
    drop(tpm);
    let mut tpm = Tpm::new(Between::answers(swtpm.unix(), value));
    assert!(matches!(Srk::find(&mut tpm, HANDLE), Err(Error::Refused { command: "TPM2_ReadPublic", .. })));
    assert!(matches!(tpm.nv_read_public(COUNTER.index()), Err(Error::Refused { .. })));
}
