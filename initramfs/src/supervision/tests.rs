//! Real processes, as root and where the version 2 hierarchy of control groups can be written to.

use super::*;
use crate::cgroup;
use crate::journal::Journal;
use ashlar_image::control::{RefusalKind, ServiceAction};
use ashlar_image::machine::MachineConfig;
use ashlar_image::report::ServicePhase;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::WaitOptions;

/// A supervisor with its log, and the loop that PID 1 has.
struct Machine {
    supervisor: Supervisor,
    journal: Journal,
}

/// Why real processes cannot be supervised here; none if they can.
fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("services are started by root only");
    }
    cgroup::tests::tree().is_none().then_some("control groups of version 2 cannot be written to")
}

impl Machine {
    /// A machine with these services; names are made unique by `test`.
    fn new(test: &str, services: &str) -> Option<Self> {
        if let Some(obstacle) = obstacle() {
            eprintln!("skipped: {obstacle}");
            return None;
        }
        let text = format!(
            r#"{{"image_id":"a","image_version":"1","hostname":"a","build_time":0,"security_version":1,"services":{}}}"#,
            services.replace('@', test)
        );
        let manifest = serde_json::from_str(&text).unwrap();
        let supervisor = Supervisor::new(&manifest, crate::root::now());
        Some(Self { supervisor, journal: Journal::new(4 << 20) })
    }

    /// One turn of the loop. Only the units' own processes are collected: other tests have children as well.
    fn turn(&mut self) {
        let now = crate::root::now();
        self.supervisor.tick(now, &mut self.journal);
        let ready: Vec<Token> = {
            let sources: Vec<_> = self.supervisor.sources().collect();
            let mut polls: Vec<PollFd<'_>> =
                sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            rustix::event::poll(&mut polls, Some(&timeout)).unwrap();
            let ready = sources.iter().zip(&polls).filter(|(_, poll)| !poll.revents().is_empty());
            ready.map(|((token, _), _)| *token).collect()
        };
        for token in ready {
            self.supervisor.handle(token, now, &mut self.journal);
        }
        let pids: Vec<Pid> = self.supervisor.processes.iter().filter_map(|process| process.pid).collect();
        for pid in pids {
            if let Ok(Some((_, status))) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)
                && let Some(exit) = process::exit_of(status)
            {
                assert!(self.supervisor.reaped(pid, &exit, crate::root::now(), &mut self.journal));
            }
        }
    }

    /// Runs until `done`; fails after 20 seconds.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = crate::root::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(crate::root::now() < end, "{what}: {:#?}", self.supervisor.states(crate::root::now()));
            self.turn();
        }
    }

    fn state(&self, name: &str) -> ServiceState {
        let states = self.supervisor.states(crate::root::now());
        states.into_iter().find(|state| state.name == name).unwrap()
    }

    fn said(&self, name: &str) -> Vec<String> {
        self.journal
            .waiting()
            .into_iter()
            .filter(|entry| entry.unit == name)
            .map(|entry| entry.message)
            .collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for process in &self.supervisor.processes {
            process.kill();
            if let Some(pid) = process.pid {
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            }
            let _ = std::fs::remove_dir(cgroup::service(&process.name));
        }
    }
}

/// A service that runs a shell script, with further keys of the manifest.
fn shell(name: &str, script: &str, keys: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(r#""{name}":{{"command":["/bin/sh","-c",{script}]{keys}}}"#)
}

#[test]
fn services_say_that_they_are_ready_and_others_follow() {
    let db = shell(
        "db-@",
        "systemd-notify --ready --status='all well' || exit 9; sleep 60",
        r#","supervision":{"ready":"notify"}"#,
    );
    let web = shell("web-@", "echo '<4>here'; exec sleep 60", r#","supervision":{"requires":["db-@"]}"#);
    let Some(mut machine) = Machine::new("ready", &format!("{{{db},{web}}}")) else { return };
    if std::process::Command::new("systemd-notify").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-notify is not installed (package systemd)");
        return;
    }
    machine.supervisor.tick(crate::root::now(), &mut machine.journal);
    assert_eq!(machine.state("db-ready").phase, ServicePhase::Starting);
    assert_eq!(machine.state("web-ready").phase, ServicePhase::Waiting);
    machine.until("db is ready", |machine| machine.state("db-ready").ready);
    assert_eq!(machine.state("db-ready").status.as_deref(), Some("all well"));
    machine.until("web has spoken", |machine| !machine.said("web-ready").is_empty());
    let entry = machine.journal.waiting().into_iter().find(|entry| entry.unit == "web-ready").unwrap();
    assert_eq!((entry.priority, entry.message.as_str()), (4, "here"));
    assert!(machine.supervisor.problems(crate::root::now()).is_empty());

    let now = crate::root::now();
    machine.supervisor.stop_all(now, &mut machine.journal);
    assert_eq!(machine.state("web-ready").phase, ServicePhase::Stopping);
    assert_eq!(machine.state("db-ready").phase, ServicePhase::Running, "it is still needed");
    machine.until("all is over", |machine| machine.supervisor.is_over());
    let refusal = machine.supervisor.control("web-ready", ServiceAction::Start, now).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
}

#[test]
fn readiness_is_seen_from_outside() {
    let path = format!("/run/ashlar-test-{}", std::process::id());
    std::fs::write(&path, "left over").unwrap_or_default();
    let script = format!("echo up > {path}; exec sleep 60");
    let one = shell(
        "file-@",
        &script,
        &format!(r#","supervision":{{"ready":{{"file":"{path}"}}}},"capabilities":["CAP_DAC_OVERRIDE"]"#),
    );
    let Some(mut machine) = Machine::new("probe", &format!("{{{one}}}")) else { return };
    machine.supervisor.tick(crate::root::now(), &mut machine.journal);
    machine.until("the file is there", |machine| machine.state("file-probe").ready);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "up\n", "what was left over is gone");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_ignores_sigterm_is_killed_with_all_its_children() {
    let script = "trap '' TERM; (trap '' TERM; sleep 600) & echo up; while :; do sleep 1; done";
    let one = shell("deaf-@", script, r#","supervision":{"stop_timeout":1}"#);
    let Some(mut machine) = Machine::new("term", &format!("{{{one}}}")) else { return };
    machine.until("it is up", |machine| machine.said("deaf-term") == ["up"]);
    let now = crate::root::now();
    machine.supervisor.control("deaf-term", ServiceAction::Stop, now).unwrap();
    machine.until("it is off", |machine| machine.state("deaf-term").phase == ServicePhase::Off);
    assert!(crate::root::now() >= now + Duration::from_secs(1), "it was asked first");
    assert_eq!(machine.state("deaf-term").last_exit.as_deref(), Some("signal 9"));
    machine.until("nothing is left", |_| {
        std::fs::read_to_string(cgroup::service("deaf-term").join("cgroup.procs")).unwrap().is_empty()
    });
    machine.supervisor.control("deaf-term", ServiceAction::Start, crate::root::now()).unwrap();
    machine.until("it is up again", |machine| machine.state("deaf-term").starts == 2);
}

#[test]
fn a_service_without_a_sign_of_life_is_killed() {
    let keys = r#","supervision":{"ready":"notify","watchdog":1}"#;
    let script = "systemd-notify --ready; test \"$WATCHDOG_USEC\" = 1000000 && exec sleep 600";
    let one = shell("hung-@", script, keys);
    let Some(mut machine) = Machine::new("dog", &format!("{{{one}}}")) else { return };
    if std::process::Command::new("systemd-notify").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-notify is not installed (package systemd)");
        return;
    }
    machine.until("it is killed", |machine| machine.state("hung-dog").last_exit.is_some());
    assert_eq!(machine.state("hung-dog").last_exit.as_deref(), Some("no sign of life"));
    let problems = machine.supervisor.problems(crate::root::now());
    assert!(
        problems.iter().any(|problem| problem.contains("service hung-dog: no sign of life")),
        "{problems:?}"
    );
}

#[test]
fn a_flood_of_lines_is_cut_and_counted() {
    let one = shell("flood-@", "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done; exec sleep 60", "");
    let Some(mut machine) = Machine::new("rate", &format!("{{{one}}}")) else { return };
    machine.until("all is read", |machine| machine.state("flood-rate").suppressed_lines == 4000);
    assert_eq!(machine.said("flood-rate").len(), 1000);
    let later = crate::root::now() + Duration::from_secs(10);
    machine.supervisor.tick(later, &mut machine.journal);
    assert_eq!(machine.said("flood-rate").last().unwrap(), "4000 lines were too many and are not logged");
}

#[test]
fn a_fork_bomb_stays_in_its_group() {
    let one = shell("bomb-@", "bomb() { bomb | bomb & }; bomb; exec sleep 600", r#","pids_max":20"#);
    let Some(mut machine) = Machine::new("fork", &format!("{{{one}}}")) else { return };
    machine.turn();
    if machine.state("bomb-fork").usage.processes.is_none() {
        eprintln!("skipped: the controller of processes is not available to control groups of version 2");
        return;
    }
    machine
        .until("it is at its limit", |machine| machine.state("bomb-fork").usage.refused_processes > Some(0));
    assert!(machine.state("bomb-fork").usage.processes <= Some(20));
    machine.supervisor.control("bomb-fork", ServiceAction::Stop, crate::root::now()).unwrap();
    machine.until("all of it is gone", |machine| {
        machine.state("bomb-fork").phase == ServicePhase::Off
            && machine.state("bomb-fork").usage.processes == Some(0)
    });
}

#[test]
fn only_the_group_of_a_unit_speaks_for_it() {
    let one = shell("quiet-@", "exec sleep 60", r#","supervision":{"ready":"notify"}"#);
    let Some(mut machine) = Machine::new("stranger", &format!("{{{one}}}")) else { return };
    machine.supervisor.tick(crate::root::now(), &mut machine.journal);
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.send_to(b"READY=1", command::notify_folder().join("quiet-stranger")).unwrap();
    for _ in 0..5 {
        machine.turn();
    }
    assert_eq!(machine.state("quiet-stranger").phase, ServicePhase::Starting, "this process is none of it");
}

/// What a service may do, as the kernel says it.
#[test]
fn a_service_has_what_it_was_given_and_no_more() {
    let script = "cat /proc/self/status; echo more; cat /proc/self/oom_score_adj; ulimit -c; ulimit -n; \
                  unshare --mount true 2>&1 || echo no namespaces; echo end; exec sleep 60";
    let keys =
        r#","uid":65534,"gid":65534,"groups":[7],"files_max":77,"capabilities":["CAP_NET_BIND_SERVICE"]"#;
    let one = shell("tame-@", script, keys);
    let two = shell(
        "free-@",
        "cat /proc/self/status; echo end; exec sleep 60",
        r#","system_calls":"all","new_privileges":true"#,
    );
    let Some(mut machine) = Machine::new("tame", &format!("{{{one},{two}}}")) else { return };
    machine.until("both have spoken", |machine| {
        ["tame-tame", "free-tame"].iter().all(|name| machine.said(name).contains(&"end".to_owned()))
    });
    let said = machine.said("tame-tame");
    let field = |said: &[String], name: &str| {
        said.iter()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (name, value) in [
        ("Uid:", "65534 65534 65534 65534"),
        ("Gid:", "65534 65534 65534 65534"),
        ("Groups:", "7"),
        ("CapEff:", "0000000000000400"),
        ("CapPrm:", "0000000000000400"),
        ("CapInh:", "0000000000000400"),
        ("CapBnd:", "0000000000000400"),
        ("CapAmb:", "0000000000000400"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("Seccomp_filters:", "2"),
    ] {
        assert_eq!(field(&said, name).as_deref(), Some(value), "{name} {said:?}");
    }
    let tail: Vec<&str> = said.iter().skip_while(|line| *line != "more").map(String::as_str).collect();
    assert_eq!(tail[1..4], ["0", "0", "77"], "oom_score_adj, core dumps, open files");
    assert!(said.contains(&"no namespaces".to_owned()), "{said:?}");

    let said = machine.said("free-tame");
    assert_eq!(
        field(&said, "CapBnd:").as_deref(),
        Some("0000000000000000"),
        "root has none unless it is given them"
    );
    assert_eq!(field(&said, "NoNewPrivs:").as_deref(), Some("0"));
    assert_eq!(field(&said, "Seccomp:").as_deref(), Some("0"));
}

#[test]
fn what_cannot_be_started_is_told() {
    let one = r#""gone-@":{"command":["/nonexistent/program"]}"#;
    let Some(mut machine) = Machine::new("gone", &format!("{{{one}}}")) else { return };
    machine.turn();
    let state = machine.state("gone-gone");
    assert_eq!((state.phase, state.starts), (ServicePhase::Waiting, 1));
    assert!(state.last_exit.as_deref().unwrap().contains("/nonexistent/program"), "{state:?}");
    assert!(machine.supervisor.has_settled(crate::root::now()));
    let refusal = machine.supervisor.control("who", ServiceAction::Stop, Duration::ZERO).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert!(refusal.advice.contains("gone-gone"));
}

fn containers() -> Supervisor {
    let text = r#"{"image_id":"a","image_version":"1","hostname":"a","build_time":0,"security_version":1,"containers":{
        "web":{"command":["/a"]},"tools":{"command":["/a"],"debug":true},
        "hook":{"command":["/a"],"start":"on-request"}}}"#;
    Supervisor::new(&serde_json::from_str(text).unwrap(), Duration::ZERO)
}

fn wanted(supervisor: &Supervisor, name: &str) -> bool {
    supervisor.plan.is_wanted(supervisor.plan.find(name).unwrap())
}

/// A machine configuration for a container; the rest is as without one.
fn config(name: &str, enabled: bool, memory: Option<u64>) -> MachineConfig {
    let mut config = MachineConfig::empty(1);
    config.containers.push(ashlar_image::machine::Container {
        name: name.into(),
        enabled,
        environment: [("A".to_owned(), "b".to_owned())].into(),
        memory: memory.map(ashlar_image::machine::Bytes),
        cpus: None,
        pids: Some(9),
    });
    config
}

#[test]
fn a_machine_configuration_switches_containers() {
    let mut supervisor = containers();
    let now = Duration::from_secs(5);
    assert!(supervisor.apply(None, now).is_empty());
    assert!(wanted(&supervisor, "web") && !wanted(&supervisor, "tools"));
    assert_eq!(supervisor.apply(Some(&config("web", false, None)), now), ["container web is stopped"]);
    assert!(!wanted(&supervisor, "web"));
    let refusal = supervisor.control("web", ServiceAction::Start, now).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(
        supervisor.apply(Some(&config("web", true, Some(1 << 20))), now),
        ["container web is started"]
    );
    let web = supervisor.processes.iter().find(|process| process.name == "web").unwrap();
    assert_eq!((web.overrides.memory_max, web.overrides.pids_max), (Some(1 << 20), Some(9)));
    let changes = supervisor.apply(Some(&config("web", true, Some(2 << 20))), now);
    assert_eq!(changes, ["container web is restarted with another environment or other limits"]);
    assert!(
        supervisor.apply(Some(&config("web", true, Some(2 << 20))), now).is_empty(),
        "nothing has changed"
    );
    supervisor.control("web", ServiceAction::Stop, now).unwrap();
    assert!(supervisor.apply(Some(&config("web", true, None)), now).is_empty());
    assert!(!wanted(&supervisor, "web"), "somebody has stopped it");
    supervisor.apply(Some(&config("gone", true, None)), now);
    assert!(
        supervisor.problems(now).iter().any(|problem| problem.contains("`gone`, which is not in the image"))
    );
}

#[test]
fn what_is_started_on_request_starts_only_then() {
    let mut supervisor = containers();
    let mut journal = Journal::new(1 << 20);
    let now = Duration::from_secs(5);
    let index = supervisor.plan.find("hook").unwrap();
    assert!(!wanted(&supervisor, "hook"));
    supervisor.plan.stop(supervisor.plan.find("web").unwrap());
    while let Some((_, action)) = supervisor.plan.next(now) {
        assert_ne!(action, Action::Start);
    }
    assert!(supervisor.plan.has_settled(now), "nobody waits for it");
    for entry in
        [config("hook", false, None), config("hook", true, None), config("hook", true, Some(1 << 20))]
    {
        supervisor.apply(Some(&entry), now);
        assert!(!wanted(&supervisor, "hook"));
    }
    for status in [3, 0] {
        supervisor.control("hook", ServiceAction::Start, now).unwrap();
        assert_eq!(supervisor.plan.next(now), Some((index, Action::Start)));
        supervisor.event(index, Event::Ended(Exit::Status(status)), now, &mut journal);
        assert_eq!(supervisor.plan.next(now + Duration::from_secs(600)), None, "once");
        let state = supervisor.states(now).into_iter().find(|state| state.name == "hook").unwrap();
        assert_eq!((state.phase, state.ended_well), (ServicePhase::Ended, Some(status == 0)));
        assert_eq!(state.problem, None);
        assert!(supervisor.problems(now).is_empty());
        // Other limits are no reason to run it.
        supervisor.apply(Some(&config("hook", true, Some(2 << 20))), now);
        assert_eq!(supervisor.plan.next(now), None);
        supervisor.apply(Some(&config("hook", true, Some(3 << 20))), now);
    }
    supervisor.apply(Some(&config("hook", false, None)), now);
    assert!(supervisor.control("hook", ServiceAction::Start, now).is_err());
}

#[test]
fn what_does_not_fit_the_image() {
    let supervisor = containers();
    assert!(supervisor.misfits(None).is_empty());
    let misfits = supervisor.misfits(Some(&config("wep", true, None)));
    assert!(misfits[0].contains("did you mean `web`?"), "{misfits:?}");
    let mut config = MachineConfig::empty(1);
    let hook = |name: &str| {
        Some(ashlar_image::machine::Hook {
            container: name.into(),
            deadline: ashlar_image::machine::Seconds(9),
        })
    };
    config.update.pre_reboot = hook("hook");
    assert!(supervisor.misfits(Some(&config)).is_empty());
    config.update.pre_reboot = hook("web");
    config.update.post_boot = hook("none-such");
    config.update.health.push(ashlar_image::machine::Health {
        name: "own".into(),
        http: None,
        container: Some("tools".into()),
        deadline: ashlar_image::machine::Seconds(9),
    });
    let misfits = supervisor.misfits(Some(&config));
    assert_eq!(misfits.len(), 3, "{misfits:?}");
    assert!(misfits[0].contains("(pre-reboot)") && misfits[1].contains("`none-such`"), "{misfits:?}");
    assert!(misfits[2].contains("(health own)"), "{misfits:?}");
}

#[test]
fn debugging_ends() {
    let mut supervisor = containers();
    let mut journal = Journal::new(1 << 20);
    let now = Duration::from_secs(5);
    let refusal = supervisor.control("tools", ServiceAction::Start, now).unwrap_err();
    assert!(refusal.message.contains("is for debugging"));
    let debug = |container: &str, until: Option<i64>, duration: Option<u64>| {
        let mut config = MachineConfig::empty(1);
        config.debug = Some(ashlar_image::machine::Debug {
            container: container.into(),
            until: until.map(ashlar_image::machine::Timestamp),
            duration: duration.map(ashlar_image::machine::Seconds),
        });
        config
    };
    let mut supervisor_of = |config: &MachineConfig| {
        supervisor.apply(Some(config), now);
        wanted(&supervisor, "tools")
    };
    assert!(!supervisor_of(&debug("tools", Some(1_700_000_000), None)), "it is long over");
    assert!(!supervisor_of(&debug("web", None, Some(60))));
    assert!(supervisor_of(&debug("tools", Some(i64::MAX), None)));
    assert!(supervisor_of(&debug("tools", None, Some(60))));
    // It also goes with the configuration.
    supervisor.apply(None, now);
    assert!(!wanted(&supervisor, "tools"));
    supervisor.apply(Some(&debug("tools", None, Some(60))), now);
    supervisor.end_debugging(now + Duration::from_secs(59));
    assert!(wanted(&supervisor, "tools"));
    assert!(supervisor.deadline().unwrap() <= now + Duration::from_secs(69));
    supervisor.end_debugging(now + Duration::from_secs(60));
    assert!(!wanted(&supervisor, "tools"));
    assert!(supervisor.control("tools", ServiceAction::Start, now).is_err());
    supervisor.stop_all(now, &mut journal);
    assert!(supervisor.is_over());
}
