//! The OVMF variable store, read back by virt-fw-vars and by us. That the firmware obeys it is shown in
//! `firmware.rs`.

use crate::run::{file, stdout, tool};
use crate::{TIME, keys};
use ashlar_keys::ovmf::{Variable, enroll, variables};
use ashlar_keys::{KeyError, ovmf};
use ashlar_measured_boot::efi::{Guid, SecureBootVariables};
use proptest::prelude::*;
use std::fs;

/// An empty store of the smallest sane size: what OVMF's begins with, shorter.
fn small_template() -> Vec<u8> {
    let size: u32 = 0x4000;
    let mut b = vec![0xff; size as usize];
    let mut put = |at: usize, value: &[u8]| b[at..at + value.len()].copy_from_slice(value);
    put(0, &[0; 16]);
    put(16, &"fff12b8d-7696-4c8b-a985-2747075b4f50".parse::<Guid>().unwrap().to_bytes());
    put(32, &u64::from(size).to_le_bytes());
    put(40, b"_FVH\xff\xfe\x04\0\x48\0\0\0\0\0\0\x02");
    put(56, &[4, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put(72, &"aaf32c78-947b-439a-a180-2e144ec37792".parse::<Guid>().unwrap().to_bytes());
    put(88, &(size / 2 - 72).to_le_bytes());
    put(92, &[0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
    let sum = b[..72].chunks(2).fold(0u16, |sum, p| sum.wrapping_add(u16::from_le_bytes([p[0], p[1]])));
    b[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    b
}

fn find<'a>(all: &'a [Variable], name: &str) -> Option<&'a Variable> {
    all.iter().find(|variable| variable.name == name)
}

#[test]
fn what_is_enrolled_is_read_back() {
    let template = small_template();
    assert_eq!(variables(&template).unwrap(), []);
    let extra = Variable::new(Guid::GLOBAL, "Timeout", 7, [0, 0]);
    let wanted = keys().secure_boot();
    let store = enroll(&template, &wanted, TIME, std::slice::from_ref(&extra)).unwrap();
    assert_eq!(store, enroll(&template, &wanted, TIME, std::slice::from_ref(&extra)).unwrap());
    let all = variables(&store).unwrap();
    let names: Vec<&str> = all.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["PK", "KEK", "db", "SecureBootEnable", "CustomMode", "Timeout"]);
    assert_eq!(find(&all, "PK").unwrap().data, wanted.pk);
    assert_eq!(find(&all, "db").unwrap().attributes, 0x27);
    assert_eq!(find(&all, "db").unwrap().timestamp[..7], [0xea, 0x07, 1, 2, 3, 4, 5]);
    assert_eq!(find(&all, "SecureBootEnable").unwrap().data, [1]);
    assert_eq!(find(&all, "CustomMode").unwrap().data, [0]);
    assert_eq!(*find(&all, "Timeout").unwrap(), extra);
    // Headers and what lies behind the store (the fault-tolerant write area) stay.
    assert_eq!(store.len(), template.len());
    assert_eq!(store[..100], template[..100]);
    assert_eq!(store[0x2000..], template[0x2000..]);
}

#[test]
fn a_variable_is_replaced_and_another_stays() {
    let old = SecureBootVariables { dbx: vec![1; 76], db: vec![9; 70], ..SecureBootVariables::default() };
    let extra = [Variable::new(Guid::GLOBAL, "Timeout", 7, [5, 0])];
    let store = enroll(&small_template(), &old, TIME, &extra).unwrap();
    let names = |store: &[u8]| variables(store).unwrap().into_iter().map(|v| v.name).collect::<Vec<_>>();
    assert_eq!(names(&store), ["db", "dbx", "SecureBootEnable", "CustomMode", "Timeout"]);
    let store = enroll(&store, &keys().secure_boot(), TIME, &[]).unwrap();
    assert_eq!(names(&store), ["Timeout", "PK", "KEK", "db", "SecureBootEnable", "CustomMode"]);
    assert_eq!(variables(&store).unwrap()[3].data, keys().secure_boot().db);
}

/// The state byte decides: what was deleted is gone, what was being replaced counts until its successor does.
#[test]
fn states_are_read_as_the_firmware_reads_them() {
    let pair = [Variable::new(Guid::GLOBAL, "One", 7, [1]), Variable::new(Guid::GLOBAL, "Two", 7, [2])];
    let store = enroll(&small_template(), &SecureBootVariables::default(), TIME, &pair).unwrap();
    let at = store.windows(6).position(|w| w == b"O\0n\0e\0").unwrap() - 60;
    assert_eq!(store[at..at + 3], [0xaa, 0x55, 0x3f]);
    let with = |state: u8| {
        let mut store = store.clone();
        store[at + 2] = state;
        let all = variables(&store).unwrap();
        assert!(find(&all, "Two").is_some());
        find(&all, "One").is_some()
    };
    assert!(with(0x3f) && with(0x3e));
    assert!(!with(0x3d) && !with(0x3c) && !with(0x7f));
}

#[test]
fn a_store_that_is_none_is_refused() {
    let refused = |spoil: &dyn Fn(&mut Vec<u8>)| {
        let mut store = small_template();
        spoil(&mut store);
        match variables(&store) {
            Err(KeyError::Store(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&|s| s.truncate(40)), "it is cut off");
    assert_eq!(refused(&|s| s.truncate(0x3fff)), "it is cut off");
    assert_eq!(refused(&|s| s[40] = b'-'), "it begins with no firmware volume for variables");
    assert_eq!(refused(&|s| s[44] ^= 1), "the checksum of its volume header is wrong");
    assert_eq!(refused(&|s| s[72] ^= 1), "it is not for authenticated variables");
    assert_eq!(refused(&|s| s[93] = 0xff), "the firmware has not formatted it");
    assert_eq!(refused(&|s| s[91] = 0xff), "its size is larger than its volume");
    assert_eq!(refused(&|s| s[100..102].fill(0)), "what follows a variable is neither another nor free");
}

#[test]
fn what_does_not_fit_is_refused() {
    let big = Variable::new(Guid::GLOBAL, "Big", 7, vec![0; 0x2000]);
    let error = enroll(&small_template(), &keys().secure_boot(), TIME, &[big]).unwrap_err();
    assert!(matches!(error, KeyError::StoreFull { needed, available: 0x1f9c } if needed > 0x2000), "{error}");
    for name in ["", "a\0b", &"x".repeat(600)] {
        let bad = Variable::new(Guid::GLOBAL, name, 7, [0]);
        let error = enroll(&small_template(), &keys().secure_boot(), TIME, &[bad]).unwrap_err();
        assert!(matches!(error, KeyError::VariableName(_)));
    }
}

proptest! {
    #[test]
    fn any_store_is_survived(changes in prop::collection::vec((0usize..1000, any::<u8>()), 1..16)) {
        let variables = SecureBootVariables { pk: vec![7; 90], db: vec![8; 333], ..Default::default() };
        let mut store = enroll(&small_template(), &variables, TIME, &[]).unwrap();
        for (at, value) in changes {
            store[at] = value;
        }
        let _ = ovmf::variables(&store);
        let _ = enroll(&store, &variables, TIME, &[]);
    }

    #[test]
    fn any_signature_list_is_survived(changes in prop::collection::vec((0usize..5000, any::<u8>()), 1..16)) {
        let SecureBootVariables { kek, db, .. } = keys().secure_boot();
        let mut lists = [kek, db].concat();
        let length = lists.len();
        for (at, value) in changes {
            lists[at % length] = value;
        }
        let _ = ashlar_measured_boot::efi::parse_signature_lists(&lists);
    }
}

/// The distribution's store with Microsoft's keys, written by the firmware itself.
#[test]
fn virt_fw_vars_reads_the_same() {
    let Some(mut tool) = tool("virt-fw-vars", "virt-firmware of PyPI") else { return };
    let templates = ["/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"]
        .map(|path| file(path, "ovmf"));
    let dir = tempfile::tempdir().unwrap();
    let (path, json) = (dir.path().join("vars.fd"), dir.path().join("vars.json"));
    tool.arg("--input").arg(&path).arg("--output-json").arg(&json);
    for template in templates.into_iter().flatten() {
        let template = fs::read(template).unwrap();
        let enrolled = enroll(&template, &keys().secure_boot(), TIME, &[]).unwrap();
        for store in [template, enrolled] {
            fs::write(&path, &store).unwrap();
            stdout(&mut tool);
            let theirs: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
            let theirs: Vec<Variable> = theirs["variables"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| Variable {
                    vendor: v["guid"].as_str().unwrap().parse().unwrap(),
                    name: v["name"].as_str().unwrap().into(),
                    attributes: v["attr"].as_u64().unwrap() as u32,
                    timestamp: v["time"]
                        .as_str()
                        .map_or([0; 16], |time| hex::decode(time).unwrap().try_into().unwrap()),
                    data: hex::decode(v["data"].as_str().unwrap()).unwrap(),
                })
                .collect();
            assert_eq!(variables(&store).unwrap(), theirs);
        }
    }
}
