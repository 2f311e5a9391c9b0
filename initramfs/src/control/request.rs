//! Requests from bytes.

use ashlar_image::control::{MAX_LINE, Refusal, RefusalKind, Request};

/// Longest name of a service in bytes.
const MAX_NAME: usize = 128;
/// Longest recovery key in bytes, as it is typed.
const MAX_RECOVERY_KEY: usize = 512;
/// Most members of a request.
const MAX_MEMBERS: usize = 8;
/// Most characters of what is wrong with a request: the rest is the peer's own text.
const MAX_MESSAGE: usize = 300;

/// A request from its line, without the end of the line.
///
/// # Errors
/// What to answer.
pub fn parse_request(line: &[u8]) -> Result<Request, Refusal> {
    if line.len() >= MAX_LINE {
        return Err(too_long());
    }
    let Some(members) = members(line) else {
        return Err(invalid("the request is no JSON object of a few strings and booleans"));
    };
    let request: Request = serde_json::from_slice(line)
        .map_err(|error| invalid(&format!("the request is wrong: {}", printable(&error.to_string()))))?;
    // serde lets the requests without members have any.
    let expected = match request {
        Request::Service { .. } | Request::Configure { .. } => 3,
        Request::GiveUp(_) => 4,
        Request::Reseal { .. } => 2,
        Request::Status
        | Request::Services
        | Request::Configuration
        | Request::Measurements
        | Request::Reboot
        | Request::PowerOff
        | Request::Commit => 1,
    };
    if members != expected {
        return Err(invalid("the request has members that it does not need"));
    }
    match &request {
        Request::Service { name, .. } if !is_name(name) => {
            Err(invalid("the name of the service has characters that no name has"))
        }
        Request::Configure { envelope, .. } if envelope.trim().is_empty() => {
            Err(invalid("the configuration is empty"))
        }
        Request::Reseal { recovery_key } if recovery_key.is_empty() => {
            Err(invalid("the recovery key is empty"))
        }
        Request::Reseal { recovery_key } if recovery_key.len() > MAX_RECOVERY_KEY => {
            Err(invalid("the recovery key is longer than any is"))
        }
        _ => Ok(request),
    }
}

/// How many members the text has, if it is one object without arrays or objects in it: a tree of values would take many
/// times its size in memory, and no request has one.
fn members(line: &[u8]) -> Option<usize> {
    let (mut objects, mut members) = (0_usize, 1_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in line {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (false, b'"') => in_string = true,
            (false, b'[') => return None,
            (false, b'{') => objects += 1,
            (false, b',') => members += 1,
            _ => {}
        }
    }
    (objects == 1 && members <= MAX_MEMBERS).then_some(members)
}

/// Names as the manifest has them: they are part of paths.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(good)
}

/// Without control characters and of bounded length: it goes to terminals.
fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_MESSAGE)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

fn invalid(message: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Invalid,
        message: message.to_owned(),
        advice: "use the `ashlarctl` that belongs to this release".into(),
    }
}

/// For a line without an end.
pub(super) fn too_long() -> Refusal {
    Refusal {
        kind: RefusalKind::Invalid,
        message: format!("the request is longer than {MAX_LINE} bytes"),
        advice: "make the configuration smaller".into(),
    }
}

/// For a second line.
pub(super) fn more_than_one() -> Refusal {
    invalid("a connection carries one request, and this one has more")
}

/// For one request too many of the long ones.
pub(super) fn too_much() -> Refusal {
    Refusal {
        kind: RefusalKind::Conflict,
        message: "too many long requests at one time".into(),
        advice: "try again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::control::{ServiceAction, TrialFailure};
    use proptest::prelude::*;

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let all = [
            Request::Status,
            Request::Services,
            Request::Service { name: "web-1.2@x".into(), action: ServiceAction::Restart },
            Request::Configuration,
            Request::Configure { envelope: "{\"payload\":[\"{,,,,,,,,,\\\\\"]}".into(), dry_run: true },
            Request::Measurements,
            Request::Reboot,
            Request::PowerOff,
            Request::Commit,
            Request::GiveUp(TrialFailure {
                version: "1.4".into(),
                check: "network".into(),
                reason: "no address".into(),
            }),
            Request::Reseal { recovery_key: "abcd-efgh".into() },
        ];
        for request in all {
            let line = serde_json::to_vec(&request).unwrap();
            assert_eq!(parse_request(&line).unwrap(), request);
        }
    }

    #[test]
    fn what_is_refused() {
        let cases: &[(&str, &str)] = &[
            ("", "no JSON object"),
            ("[]", "no JSON object"),
            ("{}{}", "no JSON object"),
            ("{\"op\":\"status\",\"x\":[1,1,1]}", "no JSON object"),
            ("{\"op\":\"status\",\"x\":{}}", "no JSON object"),
            ("{\"op\":\"status\",1,1,1,1,1,1,1,1}", "no JSON object"),
            ("{\"op\":\"status\"", "EOF"),
            ("{\"op\":\"burn\"}", "unknown variant `burn`"),
            ("{\"op\":\"reboot\",\"now\":true}", "does not need"),
            ("{\"op\":\"reseal\",\"recovery_key\":\"a\",\"force\":true}", "unknown field"),
            ("{\"op\":\"service\",\"name\":\"web\"}", "missing field `action`"),
            ("{\"op\":\"service\",\"name\":\"../x\",\"action\":\"stop\"}", "characters"),
            ("{\"op\":\"service\",\"name\":\"\",\"action\":\"stop\"}", "characters"),
            ("{\"op\":\"configure\",\"envelope\":\" \",\"dry_run\":false}", "empty"),
            ("{\"op\":\"reseal\",\"recovery_key\":\"\"}", "empty"),
        ];
        for (line, expected) in cases {
            let refusal = parse_request(line.as_bytes()).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Invalid);
            assert!(refusal.message.contains(expected), "{line}: {}", refusal.message);
        }
        let long = format!("{{\"op\":\"{}\\u001b[2J\"}}", "x".repeat(100_000));
        let refusal = parse_request(long.as_bytes()).unwrap_err();
        assert!(refusal.message.len() < 400 && !refusal.message.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_request(&bytes);
        }
    }
}
