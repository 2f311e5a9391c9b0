//! `ashlarctl measurements`, `reboot`, `power-off`, `state reseal`

use super::node::Node;
use super::{DONE, Outcome, output};
use crate::api::MAX_RECOVERY;
use crate::error::ControlError;
use ashlar_image::control::Measurements;
use clap::Subcommand;
use hyper::Method;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::path::Path;

#[derive(Debug, Subcommand)]
pub(super) enum State {
    /// Seal the state volume's key to the TPM anew, as after a change of the firmware; the recovery key comes from
    /// standard input
    Reseal,
}

pub(super) fn measurements(node: &Node) -> Outcome {
    let measured: Measurements = node.get("/v1/measurements")?;
    if node.json {
        return DONE;
    }
    let mut rows = vec![["PCR".to_owned(), "SHA-256".to_owned()]];
    rows.extend(measured.pcrs.iter().map(|(pcr, digest)| [pcr.to_string(), digest.to_string()]));
    let mut text = output::table(&rows);
    text.push_str("\nwhat init measured\n");
    for event in &measured.init_log {
        // The event as JSON: its fields are those of the attestation.
        let event = serde_json::to_string(event).unwrap_or_default();
        let _ = writeln!(text, "  {event}");
    }
    let size = measured.firmware_log.len() / 4 * 3;
    let _ = writeln!(text, "\nthe firmware's log has {size} bytes; --json has it in base64");
    output::print(&text);
    DONE
}

/// Ends the machine.
pub(super) fn end(node: &Node, path: &str, what: &str) -> Outcome {
    node.connect()?.call(Method::POST, path, Vec::new())?;
    if !node.json {
        output::print(&format!("{} {what}", node.target()));
    }
    DONE
}

impl State {
    pub(super) fn run(self, node: &Node) -> Outcome {
        let Self::Reseal = self;
        let body = serde_json::json!({ "recovery_key": recovery_key()? }).to_string();
        node.connect()?.call(Method::POST, "/v1/state/reseal", body.into_bytes())?;
        if !node.json {
            output::print(
                "the state volume is sealed to this TPM and firmware; the next boot opens it by itself",
            );
        }
        DONE
    }
}

/// The recovery key, never as an argument: others see those.
fn recovery_key() -> Result<String, ControlError> {
    let fail = || ControlError::io("read", Path::new("standard input"));
    let text = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("recovery key: ").map_err(fail())?
    } else {
        let mut text = String::new();
        std::io::stdin().lock().take(MAX_RECOVERY as u64).read_to_string(&mut text).map_err(fail())?;
        text
    };
    let key = text.trim();
    if key.is_empty() {
        return Err(ControlError::Usage("no recovery key: give it on standard input".into()));
    }
    Ok(key.to_owned())
}
