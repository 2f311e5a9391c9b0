//! A machine whose disks, firmware and PID 1 are models, and a real repository on a real web server.

use ashlar_blocks::{BLOCK, BlocksError, Hashing, Leaves, publish, verity};
use ashlar_channel::{Document, Offer};
use ashlar_image::control::{ConfigurationState, Measurements, Reply, Request, Status};
use ashlar_image::digest::Digest;
use ashlar_image::layout::{Role, Sizes, Slot};
use ashlar_image::machine::PublicKey;
use ashlar_image::release::{ARCHITECTURE, Artifact, DiskImage, FORMAT, Release, SlotArtifacts, Uki};
use ashlar_image::update::{Choice, UpdatePhase, UpdateReply};
use ashlar_measured_boot::efi::Guid;
use ashlar_slots::load_option::Place;
use ashlar_slots::model::{Machine, Random, Recorder};
use ashlar_slots::variables::Variables;
use ashlar_slots::{MemoryVariables, SlotDisks, entries};
use ashlar_tuf::repository::{Ed25519, Keys, Lifetimes, Repository, Roles, Sign};
use ashlar_update::UpdateError;
use ashlar_update::engine::{Command, Engine, Order, Shared};
use ashlar_update::hardware::Hardware;
use ashlar_update::pid1::Pid1;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

/// Sizes in blocks.
pub const ESP: usize = 64;
pub const ROOT: usize = 300;
pub const VERITY: usize = 8;
pub const SALT: Hashing = Hashing::Verity { salt: [5; 32] };
/// Repositories are signed at this time, which is the clock of the tests.
pub const NOW: i64 = 1_800_000_000;

pub fn clock() -> i64 {
    NOW
}

pub fn late() -> i64 {
    NOW + 30 * 24 * 3600
}

pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next_number().to_le_bytes()[3]).collect()
}

/// A release with what lies in its partitions.
#[derive(Debug, Clone)]
pub struct Content {
    pub release: Release,
    pub parts: BTreeMap<Role, Vec<u8>>,
}

fn leaves_of(image: &[u8]) -> Leaves {
    Leaves::from_bytes(&image.chunks(BLOCK).flat_map(|block| SALT.of(block)).collect::<Vec<u8>>()).unwrap()
}

fn esp(uki: &[u8]) -> Vec<u8> {
    let mut image = Cursor::new(vec![0; ESP * BLOCK]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    let boot = volume.root_dir().create_dir("EFI").unwrap().create_dir("BOOT").unwrap();
    boot.create_file("BOOTX64.EFI").unwrap().write_all(uki).unwrap();
    drop(boot);
    volume.unmount().unwrap();
    image.into_inner()
}

pub fn content(version: u64) -> Content {
    let uki = bytes(9 * BLOCK, version * 10 + 1);
    // Twenty blocks are new in each release, and all behind them has moved.
    let mut root = bytes(20 * BLOCK, version * 10 + 2);
    root.extend(bytes((ROOT - 20) * BLOCK, 7).split_off(usize::try_from(version % 3).unwrap() * BLOCK));
    root.resize(ROOT * BLOCK, 0);
    let leaves = leaves_of(&root);
    let Err(BlocksError::RootHash { found, .. }) = verity::partition(SALT, [1; 16], &leaves, Digest::ZERO)
    else {
        panic!("zeros are no root hash");
    };
    let tree = verity::partition(SALT, [1; 16], &leaves, found).unwrap();
    let parts = BTreeMap::from([(Role::Esp, esp(&uki)), (Role::Root, root), (Role::Verity, tree)]);
    let artifact = |role: Role| Artifact {
        file: format!("{role:?}"),
        size: parts[&role].len() as u64,
        sha256: Digest::of(&parts[&role]),
    };
    let release = Release {
        format: FORMAT,
        image_id: "host".into(),
        image_version: format!("1.{version}"),
        architecture: Some(ARCHITECTURE.into()),
        security_version: 1,
        build_time: 0,
        kernel: String::new(),
        partition_sizes: Sizes::default(),
        slot: SlotArtifacts {
            esp: artifact(Role::Esp),
            root: artifact(Role::Root),
            verity: artifact(Role::Verity),
        },
        disk: DiskImage { file: String::new(), size: 0 },
        root_hash: found,
        uki: Uki {
            artifact: Artifact { file: "uki.efi".into(), size: uki.len() as u64, sha256: Digest::of(&uki) },
            authenticode: Digest::ZERO,
            kernel_authenticode: Digest::ZERO,
            stub_version: String::new(),
            cmdline: String::new(),
            sections: BTreeMap::new(),
        },
        pcrs: BTreeMap::new(),
        state_policy: None,
        init: Digest::ZERO,
        control: None,
        update: None,
        hardening: Vec::new(),
        packages: Vec::new(),
    };
    Content { release, parts }
}

fn place(slot: Slot) -> Place {
    let number = if slot == Slot::A { 1 } else { 4 };
    Place { number, start: 2048, size: 512, guid: Guid::from_bytes([slot.letter() as u8; 16]) }
}

/// A machine that runs `content` from slot A.
pub fn machine(content: &Content) -> Machine {
    let mut disks = BTreeMap::new();
    for slot in [Slot::A, Slot::B] {
        for (role, blocks) in [(Role::Esp, ESP), (Role::Root, ROOT + 4), (Role::Verity, VERITY)] {
            disks.insert((slot, role), vec![0; blocks * BLOCK]);
        }
    }
    for (role, part) in &content.parts {
        disks.get_mut(&(Slot::A, *role)).unwrap()[..part.len()].copy_from_slice(part);
    }
    Machine { disks, variables: MemoryVariables::default() }
}

/// The model as the engine's hardware.
#[derive(Debug)]
pub struct Model {
    pub recorder: Recorder,
    pub running: Slot,
}

impl Hardware for Model {
    fn running(&self) -> Slot {
        self.running
    }

    fn slot(&self, slot: Slot) -> Result<SlotDisks, UpdateError> {
        let disk = |role| Box::new(self.recorder.disk((slot, role)));
        Ok(SlotDisks {
            slot,
            place: place(slot),
            esp: disk(Role::Esp),
            root: disk(Role::Root),
            verity: disk(Role::Verity),
        })
    }

    fn variables(&self) -> Box<dyn Variables> {
        Box::new(self.recorder.variables())
    }
}

/// PID 1 as the engine sees it, and what it was told.
#[derive(Debug)]
pub struct Init {
    pub status: Status,
    pub configuration: String,
    pub told: Mutex<Vec<Request>>,
}

impl Pid1 for Init {
    fn ask(&self, request: &Request) -> Result<Reply, UpdateError> {
        Ok(match request {
            Request::Status => Reply::Status(Box::new(self.status.clone())),
            Request::Configuration => Reply::Configuration(ConfigurationState {
                text: Some(self.configuration.clone()),
                digest: None,
                serial: Some(1),
                source: None,
                refused: None,
            }),
            Request::Measurements => Reply::Measurements(Measurements {
                pcrs: BTreeMap::new(),
                firmware_log: String::new(),
                init_log: Vec::new(),
            }),
            other => {
                self.told.lock().unwrap().push(other.clone());
                Reply::Done
            }
        })
    }
}

pub fn status(version: &str) -> Status {
    let json = serde_json::json!({
        "machine_id": "a", "hostname": "a", "image_id": "host", "image_version": version, "security_version": 1,
        "rollback_floor": null, "slot": "root-a", "root_hash": Digest::ZERO, "kernel": "", "secure_boot": false,
        "state": "tpm", "good": true, "ready": true, "problems": [], "last_boot": null, "addresses": ["eth0 10.0.2.15/24"],
        "time_server": null, "watchdog": null, "uptime_seconds": 1.0, "time": NOW, "configuration_serial": 1, "services": [],
    });
    serde_json::from_value(json).unwrap()
}

/// A web server of files, with ranges or without.
fn serve(root: PathBuf, ranges: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut path, mut range) = (String::new(), None);
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    if let Some(rest) = line.strip_prefix("GET /") {
                        rest.split(' ').next().unwrap().clone_into(&mut path);
                    }
                    if let Some(rest) = line.to_lowercase().strip_prefix("range: bytes=") {
                        let (from, to) = rest.trim().split_once('-').unwrap();
                        range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap()));
                    }
                    line.clear();
                }
                let mut stream = stream;
                let _ = match (std::fs::read(root.join(&path)), range.filter(|_| ranges)) {
                    (Err(_), _) => stream.write_all(
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    ),
                    (Ok(file), Some((from, to))) => {
                        let part = &file[from..(to + 1).min(file.len())];
                        let head = format!(
                            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nConnection: close\r\n\r\n",
                            part.len(),
                            from + part.len() - 1,
                            file.len()
                        );
                        stream.write_all(&[head.as_bytes(), part].concat())
                    }
                    (Ok(file), None) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                            file.len()
                        );
                        stream.write_all(&[head.as_bytes(), &file].concat())
                    }
                };
            });
        }
    });
    port
}

/// A channel with one release, `change`d before it is signed.
fn repository(
    folder: &Path,
    content: &Content,
    change: impl FnOnce(&mut Document, &mut Vec<u8>),
) -> [u8; 32] {
    let owner = Ed25519::from_seed(&[1; 32]).unwrap();
    let keys = || Keys { keys: vec![owner.public().clone()], threshold: 1 };
    let roles = Roles { root: keys(), targets: keys(), snapshot: keys(), timestamp: keys() };
    let mut repository = Repository::create(folder, &roles, Lifetimes::default(), &[&owner], NOW).unwrap();
    let release = &content.release;
    let mut json = serde_json::to_vec(release).unwrap();
    let mut document = Document::new("stable", "host", ARCHITECTURE);
    document.releases.push(Offer {
        version: release.image_version.clone(),
        release: Digest::of(&json),
        security_version: 1,
        rollout: Vec::new(),
        floor: false,
        barrier: None,
        dead_end: None,
        withdrawn: None,
        notes: None,
    });
    change(&mut document, &mut json);
    let base = format!("releases/host/{}", release.image_version);
    for (role, name, hashing, uuid) in
        [(Role::Root, "root", SALT, [1; 16]), (Role::Esp, "esp", Hashing::Plain, [0; 16])]
    {
        let image = &content.parts[&role];
        let mut frames = Vec::new();
        let published =
            publish(&mut Cursor::new(image), image.len() as u64, hashing, uuid, &mut frames, |_| {}).unwrap();
        for (kind, bytes) in [
            ("index", published.index.to_bytes().unwrap()),
            ("leaves", published.leaves.as_bytes().to_vec()),
            ("frames", frames),
        ] {
            repository.put_bytes(&format!("{base}/{name}.{kind}"), bytes, None).unwrap();
        }
    }
    repository.put_bytes(&format!("{base}/release.json"), json, None).unwrap();
    repository.put_bytes("channels/stable.json", document.to_bytes().unwrap(), None).unwrap();
    repository.publish(Lifetimes::default(), &[&owner], NOW).unwrap();
    owner.public().ed25519_bytes().unwrap()
}

pub struct Lab {
    pub folder: tempfile::TempDir,
    pub recorder: Recorder,
    pub init: Arc<Init>,
}

impl Lab {
    pub fn new(
        running: &Content,
        next: &Content,
        ranges: bool,
        change: impl FnOnce(&mut Document, &mut Vec<u8>),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let channel = folder.path().join("channel");
        let key = repository(&channel, next, change);
        let port = serve(channel, ranges);
        let key = PublicKey(key);
        let configuration = format!(
            "serial = 1\n[channel]\nurl = \"http://127.0.0.1:{port}\"\nname = \"stable\"\nkey = '''\n{key}'''\n"
        );
        let init =
            Init { status: status(&running.release.image_version), configuration, told: Mutex::default() };
        Self { folder, recorder: Recorder::new(machine(running)), init: Arc::new(init) }
    }

    /// Gives the engine an order and waits for its end.
    pub fn order(
        &self,
        command: Command,
        clock: fn() -> i64,
    ) -> (Result<UpdateReply, UpdateError>, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        let hardware = Model { recorder: self.recorder.clone(), running: Slot::A };
        let state = self.folder.path().join("state");
        let mut engine =
            Engine::new(Box::new(hardware), self.init.clone(), &state, shared.clone(), clock, 0).unwrap();
        let (orders, receiver) = sync_channel::<Order>(1);
        let (sender, answers) = sync_channel(2);
        orders.send((command, sender)).unwrap();
        drop(orders);
        engine.run(&receiver);
        let last = answers.try_iter().last().unwrap();
        (last, shared)
    }

    pub fn stage(&self) -> (Result<UpdateReply, UpdateError>, Arc<Shared>) {
        self.order(Command::Stage(Choice::default()), clock)
    }

    /// It is refused, and the machine is as it was: nothing else can start.
    pub fn refused(&self, words: &str, clock: fn() -> i64) {
        let (result, shared) = self.order(Command::Stage(Choice::default()), clock);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "`{words}` is not in `{error}`");
        assert_ne!(shared.status().phase, UpdatePhase::Staged);
        let machine = self.recorder.machine();
        let entries = entries::Entries::read(&machine.variables).unwrap();
        assert_eq!(entries.next, None);
        let esp = &machine.disks[&(Slot::B, Role::Esp)];
        assert!(esp[..BLOCK].iter().all(|byte| *byte == 0), "slot B cannot be started");
    }
}
