//! QEMU's control protocol (QMP): lines of JSON.

use crate::error::QemuError;
use serde_json::Value;

/// A message from QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first line.
    Greeting,
    /// A command was carried out; text, if its answer is one.
    Done(Option<String>),
    /// A command was refused, and why.
    Refused(String),
    /// The machine was reset.
    Reset,
    /// The machine stops, for this reason (`ShutdownCause` in QEMU's `qapi/run-state.json`).
    Shutdown(String),
    /// The guest did not feed its watchdog.
    Watchdog,
    /// Any other event.
    Event(String),
}

/// Longest line that is read.
pub const LINE_LIMIT: usize = 1 << 20;

/// Reads one line of QMP.
pub fn parse_message(line: &[u8]) -> Result<Message, QemuError> {
    let malformed = || QemuError::Control("an answer that is no QMP message".into());
    let value: Value = serde_json::from_slice(line).map_err(|_| malformed())?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if value.get("QMP").is_some() {
        return Ok(Message::Greeting);
    }
    if let Some(answer) = value.get("return") {
        return Ok(Message::Done(text(answer)));
    }
    if let Some(error) = value.get("error") {
        let why = error.get("desc").and_then(text);
        return Ok(Message::Refused(why.unwrap_or_else(|| error.to_string())));
    }
    let name = value.get("event").and_then(text).ok_or_else(malformed)?;
    Ok(match name.as_str() {
        "RESET" => Message::Reset,
        "WATCHDOG" => Message::Watchdog,
        "SHUTDOWN" => {
            let reason = value.pointer("/data/reason").and_then(text);
            Message::Shutdown(reason.unwrap_or_else(|| "unknown".into()))
        }
        _ => Message::Event(name),
    })
}

/// The line for a command.
pub fn command(name: &str, arguments: &[(&str, &str)]) -> String {
    let mut command = serde_json::json!({ "execute": name });
    if !arguments.is_empty() {
        let arguments = arguments.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value)));
        command["arguments"] = Value::Object(arguments.collect());
    }
    format!("{command}\n")
}

/// The host port of each forward to `guest` in the text that the monitor's `info usernet` prints, in order.
pub fn forwarded(usernet: &str, guest: u16) -> Vec<u16> {
    usernet
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().filter(|kind| *kind == "TCP[HOST_FORWARD]")?;
            // File descriptor, source address, source port, destination address, destination port.
            let host = words.nth(2)?.parse().ok()?;
            (words.nth(1)?.parse() == Ok(guest)).then_some(host)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let parse = |line: &str| parse_message(line.as_bytes()).unwrap();
        assert_eq!(parse(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#), Message::Greeting);
        assert_eq!(parse(r#"{"return": {}}"#), Message::Done(None));
        assert_eq!(parse(r#"{"return": "text"}"#), Message::Done(Some("text".into())));
        assert_eq!(
            parse(r#"{"error": {"class": "GenericError", "desc": "no"}}"#),
            Message::Refused("no".into())
        );
        assert_eq!(parse(r#"{"event": "RESET", "data": {"guest": true}}"#), Message::Reset);
        let line = r#"{"event": "WATCHDOG", "data": {"action": "reset"}}"#;
        assert_eq!(parse(line), Message::Watchdog);
        assert_eq!(
            parse(r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#),
            Message::Shutdown("guest-reset".into())
        );
        assert_eq!(parse(r#"{"event": "STOP"}"#), Message::Event("STOP".into()));
    }

    #[test]
    fn no_line_panics() {
        let good = br#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        for end in 0..good.len() {
            assert!(parse_message(&good[..end]).is_err());
            for byte in [0, b'"', b'{', b'[', 0xff] {
                let mut bad = good.to_vec();
                bad[end] = byte;
                let _ = parse_message(&bad);
            }
        }
        for odd in ["[]", "7", "null", r#"{"event": 1}"#, r#"{"error": []}"#, r#"{"return": [1]}"#] {
            let _ = parse_message(odd.as_bytes());
        }
    }

    #[test]
    fn commands_are_lines() {
        assert_eq!(command("quit", &[]), "{\"execute\":\"quit\"}\n");
        let line = command("human-monitor-command", &[("command-line", "a \"b\"\n")]);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn forwards_are_found_by_guest_port() {
        let text = "Hub -1 (n):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n\
                    \x20 TCP[HOST_FORWARD]   3       127.0.0.1 39239       10.0.2.15  8080     0     0\r\n\
                    \x20 UDP[HOST_FORWARD]   4       127.0.0.1 1           10.0.2.15  8080     0     0\r\n\
                    \x20 TCP[HOST_FORWARD]   5       127.0.0.1 40000       10.0.2.15    22     0     0\r\n";
        assert_eq!(forwarded(text, 8080), [39239]);
        assert_eq!(forwarded(text, 22), [40000]);
        assert!(forwarded("TCP[HOST_FORWARD]", 22).is_empty());
    }
}
