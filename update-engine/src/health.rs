//! Is the machine well with the release that it tries? Named checks; the first one that fails is what is told.

use ashlar_image::control::Status;
use ashlar_image::machine::{Health, MachineConfig};
use ashlar_image::report::{ServicePhase, ServiceState};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(5);
/// Longest head of an answer that is looked at, in bytes.
const MAX_HEAD: u64 = 4096;

/// One check and what is wrong; none if it has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name: `machine`, `network`, `channel`, `health web`.
    pub name: String,
    /// What is wrong.
    pub problem: Option<String>,
    /// Seconds after the start of the checks by which it must pass; none: the deadline of the trial.
    pub deadline: Option<u64>,
}

fn check(name: &str, problem: Option<String>) -> Check {
    Check { name: name.into(), problem, deadline: None }
}

/// What PID 1's status says by itself.
pub fn built_in(status: &Status, has_channel: bool) -> Vec<Check> {
    let network =
        (has_channel && status.addresses.is_empty()).then(|| "the machine has no address".to_owned());
    let state = (status.state == "none").then(|| "the state volume is not open".to_owned());
    let containers: Vec<String> = status.services.iter().filter_map(ill).collect();
    let containers = (!containers.is_empty()).then(|| containers.join("; "));
    let machine = if !status.ready {
        Some("the machine is not ready yet".to_owned())
    } else if status.problems.is_empty() {
        None
    } else {
        Some(status.problems.join("; "))
    };
    vec![
        check("network", network),
        check("state", state),
        check("containers", containers),
        check("machine", machine),
    ]
}

fn ill(service: &ServiceState) -> Option<String> {
    let fine = match service.phase {
        ServicePhase::Off | ServicePhase::Ended => true,
        ServicePhase::Running => service.ready,
        _ => false,
    };
    let problem = service.problem.as_deref().unwrap_or_else(|| service.phase.name());
    (!fine || service.problem.is_some()).then(|| format!("{}: {problem}", service.name))
}

/// What the owner's checks say. `states` are the services as they are now; `begun` are containers that were started for a
/// check, with how often each had been started before.
pub fn owners(config: &MachineConfig, states: &[ServiceState], begun: &BTreeMap<String, u32>) -> Vec<Check> {
    config
        .update
        .health
        .iter()
        .map(|health| Check {
            name: format!("health {}", health.name),
            problem: one(health, states, begun).err(),
            deadline: Some(health.deadline.0),
        })
        .collect()
}

fn one(health: &Health, states: &[ServiceState], begun: &BTreeMap<String, u32>) -> Result<(), String> {
    if let Some(url) = &health.http {
        return http(url.as_str());
    }
    let name = health.container.as_deref().unwrap_or_default();
    container(name, states, begun.get(name).copied())
}

/// Whether a container that is to run once has ended well since it had been started `before` times.
pub fn container(name: &str, states: &[ServiceState], before: Option<u32>) -> Result<(), String> {
    let state = states.iter().find(|state| state.name == name);
    let state = state.ok_or_else(|| format!("the image has no container `{name}`"))?;
    let before = before.ok_or("it has not been started yet")?;
    if state.starts <= before || state.running {
        return Err("it has not ended yet".into());
    }
    match (state.ended_well, &state.last_exit) {
        (Some(true), _) => Ok(()),
        (_, Some(exit)) => Err(exit.clone()),
        (_, None) => Err("it has not ended yet".into()),
    }
}

/// Whether a server on this machine answers with a status from 200 to 299.
pub fn http(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or("it is no http address")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let with_port = if authority.parse::<SocketAddr>().is_ok() {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let address: SocketAddr = with_port.parse().map_err(|_| "its address cannot be read")?;
    let fail = |error: std::io::Error| format!("it does not answer: {error}");
    let mut stream = TcpStream::connect_timeout(&address, PROBE).map_err(fail)?;
    stream.set_read_timeout(Some(PROBE)).map_err(fail)?;
    stream.set_write_timeout(Some(PROBE)).map_err(fail)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nUser-Agent: ashlar\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.contains(&b'\n') && (head.len() as u64) < MAX_HEAD {
        let read = stream.read(&mut buffer).map_err(fail)?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let code = line
        .strip_prefix("HTTP/")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=299) => Ok(()),
        Some(code) => Err(format!("it answers with status {code}")),
        None => Err("its answer is no HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        (url, thread)
    }

    #[test]
    fn probes() {
        for (answer, problem) in [
            ("HTTP/1.1 200 OK\r\n\r\n", None),
            ("HTTP/1.0 204 No Content\r\n\r\n", None),
            ("HTTP/1.1 503 Sorry\r\n\r\n", Some("status 503")),
            ("HTTP/1.1 302 Found\r\n\r\n", Some("status 302")),
            ("hello\r\n", Some("no HTTP")),
            ("", Some("no HTTP")),
        ] {
            let (url, thread) = serve(answer);
            match (http(&url), problem) {
                (Ok(()), None) => {}
                (Err(found), Some(problem)) => assert!(found.contains(problem), "{answer}: {found}"),
                (found, _) => panic!("{answer}: {found:?}"),
            }
            thread.join().unwrap();
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(http(&format!("http://{closed}/")).unwrap_err().contains("does not answer"));
        assert!(http("http://nowhere/").is_err());
    }

    #[test]
    fn containers_that_run_once() {
        let state = |starts, running, well: Option<bool>| ServiceState {
            name: "check".into(),
            starts,
            running,
            ended_well: well,
            last_exit: well.map(|well| format!("exit status {}", u8::from(!well))),
            ..ServiceState::default()
        };
        let ask = |state: ServiceState, before| container("check", &[state], before);
        assert_eq!(ask(state(3, false, Some(true)), Some(2)), Ok(()));
        assert_eq!(ask(state(3, false, Some(false)), Some(2)), Err("exit status 1".into()));
        assert!(ask(state(2, false, Some(true)), Some(2)).is_err(), "that was the time before");
        assert!(ask(state(3, true, Some(true)), Some(2)).is_err());
        assert!(ask(state(3, false, Some(true)), None).is_err());
        assert!(container("other", &[], Some(0)).unwrap_err().contains("no container"));
    }

    #[test]
    fn services_that_are_ill() {
        let state = |phase, ready, problem: Option<&str>| ServiceState {
            name: "web".into(),
            phase,
            ready,
            problem: problem.map(str::to_owned),
            ..ServiceState::default()
        };
        assert_eq!(ill(&state(ServicePhase::Running, true, None)), None);
        assert_eq!(ill(&state(ServicePhase::Ended, false, None)), None);
        assert_eq!(ill(&state(ServicePhase::Starting, false, None)).unwrap(), "web: starting");
        assert_eq!(ill(&state(ServicePhase::Failed, false, Some("too often"))).unwrap(), "web: too often");
        assert!(ill(&state(ServicePhase::Ended, false, Some("exit status 1"))).is_some());
    }
}
