//! A source in memory whose every byte can be changed.
#![allow(dead_code, clippy::unwrap_used)]

use ashlar_fetch::{Body, FetchError, Request, Source};
use ashlar_tuf::canonical;
use ashlar_tuf::repository::{Ed25519, Sign};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;

/// A source in memory, with an attacker's hand on it.
#[derive(Debug, Default)]
pub struct Mirror {
    pub files: Mutex<BTreeMap<String, Vec<u8>>>,
    pub endless: Option<String>,
    /// What was asked for.
    pub asked: Mutex<Vec<String>>,
}

struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b' ');
        Ok(buffer.len())
    }
}

impl Source for Mirror {
    fn open(&self, request: &Request) -> Result<Body, FetchError> {
        self.asked.lock().unwrap().push(request.path.clone());
        if self.endless.as_deref() == Some(&request.path) {
            return Ok(Body { start: 0, length: None, reader: Box::new(Endless) });
        }
        let files = self.files.lock().unwrap();
        let bytes = files.get(&request.path).ok_or_else(|| FetchError::NotFound(request.path.clone()))?;
        Ok(Body {
            start: 0,
            length: Some(bytes.len() as u64),
            reader: Box::new(io::Cursor::new(bytes.clone())),
        })
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

impl Mirror {
    pub fn of(folder: &Path) -> Self {
        fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, files);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(folder, folder, &mut files);
        Self { files: Mutex::new(files), endless: None, asked: Mutex::default() }
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap()[name].clone()
    }

    pub fn set(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), bytes);
    }

    pub fn newest(&self, role: &str) -> String {
        let files = self.files.lock().unwrap();
        let versions =
            files.keys().filter_map(|name| name.strip_suffix(&format!(".{role}.json"))?.parse::<u64>().ok());
        format!("{}.{role}.json", versions.max().unwrap())
    }

    /// Changes what a file says and signs it again with these keys.
    pub fn forge(&self, name: &str, signers: &[&Ed25519], change: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&self.get(name)).unwrap();
        change(&mut value["signed"]);
        let message = canonical(&value["signed"]).unwrap();
        value["signatures"] = signers
            .iter()
            .map(|key| json!({ "keyid": key.public().id(), "sig": hex::encode(key.sign(&message).unwrap()) }))
            .collect();
        self.set(name, serde_json::to_vec(&value).unwrap());
    }
}

/// A key from a number.
pub fn key(number: u8) -> Ed25519 {
    Ed25519::from_seed(&[number; 32]).unwrap()
}
