//! A cluster of real etcd members, each in a network namespace of its own on one bridge.

use crate::inside::sh;
use ashlar_lock::{Etcd, EtcdOptions, Group, Lock};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Largest size of a member's database in bytes, so that it can be filled.
const QUOTA: u32 = 16 << 20;

struct Member {
    /// Keeps the namespace while etcd does not run.
    keeper: Child,
    etcd: Option<Child>,
}

pub struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", number + 1)
}

impl Cluster {
    /// Starts `count` members.
    pub fn start(count: usize) -> Self {
        sh(
            "ip link set lo up; ip link add name br0 type bridge; ip link set br0 up; ip addr add 10.77.0.100/24 dev br0",
        );
        let shm = std::path::Path::new("/dev/shm");
        let folder = if shm.is_dir() { TempDir::new_in(shm) } else { TempDir::new() }.unwrap();
        let mut cluster = Self { members: Vec::new(), folder };
        for number in 0..count {
            let keeper = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
            let (pid, own) = (keeper.id(), address(number));
            cluster.members.push(Member { keeper, etcd: None });
            // It has its namespace a moment after it has started.
            let until = Instant::now() + Duration::from_secs(10);
            let here = std::fs::read_link("/proc/self/ns/net").unwrap();
            while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|there| there == here) {
                assert!(Instant::now() < until);
                std::thread::sleep(Duration::from_millis(10));
            }
            sh(&format!(
                "ip link add name p{number} type veth peer name e{number}; ip link set e{number} netns {pid}; \
                 ip link set p{number} master br0 up; \
                 nsenter -t {pid} -n sh -ec 'ip link set lo up; ip addr add {own}/24 dev e{number}; ip link set e{number} up'"
            ));
        }
        for number in 0..count {
            cluster.run(number);
        }
        cluster.ready();
        cluster
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, number: usize) {
        let all: Vec<String> = (0..self.members.len())
            .map(|number| format!("m{number}=http://{}:2380", address(number)))
            .collect();
        let (own, data) = (address(number), self.folder.path().join(format!("m{number}")));
        let log = std::fs::File::create(self.folder.path().join(format!("m{number}.log"))).unwrap();
        let child = Command::new("nsenter")
            .args(["-t", &self.members[number].keeper.id().to_string(), "-n", "--", "etcd"])
            .args(["--name", &format!("m{number}"), "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", &format!("http://{own}:2379")])
            .args(["--advertise-client-urls", &format!("http://{own}:2379")])
            .args(["--listen-peer-urls", &format!("http://{own}:2380")])
            .args(["--initial-advertise-peer-urls", &format!("http://{own}:2380")])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--quota-backend-bytes", &QUOTA.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[number].etcd = Some(child);
    }

    /// Waits until there is a leader.
    pub fn ready(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let healthy = self.ctl("endpoint health").status().unwrap().success();
            if healthy {
                return;
            }
            assert!(Instant::now() < until, "the members are not well");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|number| format!("http://{}:2379", address(number))).collect()
    }

    fn ctl(&self, arguments: &str) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args([
                "--command-timeout",
                "5s",
                "--dial-timeout",
                "2s",
                "--endpoints",
                &self.endpoints().join(","),
            ])
            .args(arguments.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// What etcd's own client says.
    pub fn etcdctl(&self, arguments: &str) -> String {
        let output = self.ctl(arguments).stdout(Stdio::piped()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Number of the leader.
    pub fn leader(&self) -> Option<usize> {
        let text = self.etcdctl("endpoint status --write-out json");
        let members: serde_json::Value = serde_json::from_str(&text).ok()?;
        let of = |status: &serde_json::Value| {
            (status["Status"]["leader"].as_u64(), status["Status"]["header"]["member_id"].as_u64())
        };
        let leads = |status: &&serde_json::Value| {
            let (leader, own) = of(status);
            leader.is_some() && leader == own
        };
        let endpoint = members.as_array()?.iter().find(leads)?["Endpoint"].as_str()?.to_owned();
        self.endpoints().iter().position(|own| *own == endpoint)
    }

    fn etcd_pid(&self, number: usize) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.members[number].etcd.as_ref().unwrap())
    }

    pub fn kill(&mut self, number: usize) {
        let mut child = self.members[number].etcd.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn pause(&self, number: usize) {
        rustix::process::kill_process(self.etcd_pid(number), rustix::process::Signal::STOP).unwrap();
    }

    pub fn go_on(&self, number: usize) {
        rustix::process::kill_process(self.etcd_pid(number), rustix::process::Signal::CONT).unwrap();
    }

    /// Nothing gets to the member or from it, or again all.
    pub fn plug(&self, number: usize, how: &str) {
        assert!(number < self.members.len());
        sh(&format!("ip link set p{number} {how}"));
    }

    /// The member and the others do not reach each other; clients reach all.
    pub fn split(&self, number: usize) {
        self.routes(number, "add");
    }

    pub fn join(&self, number: usize) {
        self.routes(number, "del");
    }

    fn routes(&self, number: usize, what: &str) {
        let pid = self.members[number].keeper.id();
        for other in (0..self.members.len()).filter(|other| *other != number) {
            sh(&format!("nsenter -t {pid} -n ip route {what} blackhole {}/32", address(other)));
        }
    }

    /// A lock of a group.
    pub fn lock(&self, group: &str) -> Lock<Etcd> {
        lock(&self.endpoints(), group)
    }
}

pub fn lock(endpoints: &[String], group: &str) -> Lock<Etcd> {
    let options = EtcdOptions { endpoints: endpoints.to_vec(), ..EtcdOptions::default() };
    Lock::new(Etcd::new(options).unwrap(), group.parse::<Group>().unwrap())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            for child in member.etcd.iter_mut().chain([&mut member.keeper]) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
