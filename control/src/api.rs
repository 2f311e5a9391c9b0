//! The API: which request means what, who may, and which HTTP status goes with which refusal.

use crate::logs::query::Query;
use crate::role::Role;
use ashlar_image::control::{Refusal, RefusalKind, Request, ServiceAction};
use ashlar_image::update::{Choice, UpdateRequest};
use std::fmt::Write as _;

/// Longest signed configuration in bytes. As JSON text in a line for PID 1 it stays below `MAX_LINE` unless most of it
/// must be escaped.
pub const MAX_CONFIGURATION: usize = 1 << 20;
/// Longest body with a recovery key in bytes.
pub const MAX_RECOVERY: usize = 4096;
/// Longest path and query in bytes.
const MAX_TARGET: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// PID 1 answers; the request has no body.
    Ask(Request),
    /// A signed configuration comes as the body.
    Configure {
        /// Only say what would change.
        dry_run: bool,
    },
    /// The recovery key comes as the body: `{"recovery_key": "..."}`.
    Reseal,
    /// The log is streamed.
    Logs(Query),
    /// The update engine answers; the request has no body.
    Update(UpdateRequest),
    /// An offline bundle comes as the body.
    Bundle {
        /// Whether to restart into it.
        restart: bool,
    },
}

impl Call {
    /// Which role is needed. The configuration's text may hold secrets of containers and proxies.
    pub const fn needs(&self) -> Role {
        match self {
            Self::Ask(Request::Status | Request::Services | Request::Measurements) | Self::Logs(_) => {
                Role::Reader
            }
            Self::Update(request) if !asks_for_change(request) => Role::Reader,
            Self::Update(UpdateRequest::Unbar { .. } | UpdateRequest::Bundle { .. })
            | Self::Bundle { .. }
            | Self::Ask(
                Request::Configure { .. } | Request::Reseal { .. } | Request::Commit | Request::GiveUp(_),
            )
            | Self::Configure { .. }
            | Self::Reseal => Role::Admin,
            // An update takes nothing that the owner has not signed and offered.
            Self::Update(_)
            | Self::Ask(
                Request::Service { .. } | Request::Configuration | Request::Reboot | Request::PowerOff,
            ) => Role::Operator,
        }
    }

    /// Whether something is changed: that is logged.
    pub const fn changes(&self) -> bool {
        match self {
            Self::Ask(
                Request::Status | Request::Services | Request::Measurements | Request::Configuration,
            )
            | Self::Logs(_) => false,
            Self::Update(request) => asks_for_change(request),
            Self::Bundle { .. } | Self::Ask(_) | Self::Configure { .. } | Self::Reseal => true,
        }
    }

    /// Longest body in bytes. A bundle is passed on and not kept: the engine bounds it.
    pub const fn max_body(&self) -> usize {
        match self {
            Self::Ask(_) | Self::Logs(_) | Self::Update(_) | Self::Bundle { .. } => 0,
            Self::Configure { .. } => MAX_CONFIGURATION,
            Self::Reseal => MAX_RECOVERY,
        }
    }
}

/// Whether the update engine does more than tell.
const fn asks_for_change(request: &UpdateRequest) -> bool {
    !matches!(
        request,
        UpdateRequest::Status
            | UpdateRequest::Plan(_)
            | UpdateRequest::History
            | UpdateRequest::Why
            | UpdateRequest::Metrics
            | UpdateRequest::Identity
    )
}

/// A refusal with its HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The body of the response.
    pub refusal: Refusal,
}

impl Problem {
    /// A refusal with a status of its own.
    pub fn new(
        status: u16,
        kind: RefusalKind,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { status, refusal: Refusal { kind, message: message.into(), advice: advice.into() } }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::Invalid => 400,
            RefusalKind::Forbidden => 403,
            RefusalKind::NotFound => 404,
            RefusalKind::Conflict => 409,
            RefusalKind::Failed => 500,
        };
        Self { status, refusal }
    }
}

/// What a method and a target (`/v1/logs?lines=10`) ask for.
pub fn route(method: &str, path: &str, query: Option<&str>) -> Result<Call, Problem> {
    let query = query.unwrap_or_default();
    if path.len().saturating_add(query.len()) > MAX_TARGET {
        return Err(Problem::new(414, RefusalKind::Invalid, "the address of the request is too long", ""));
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let Some((&"v1", parts)) = parts.split_first() else {
        return Err(Problem::new(
            404,
            RefusalKind::NotFound,
            "this machine speaks version 1 of the control API: addresses begin with /v1/",
            "use the `ashlarctl` of the machine's release",
        ));
    };
    let (allowed, call) = match parts {
        ["status"] => ("GET", Call::Ask(Request::Status)),
        ["services"] => ("GET", Call::Ask(Request::Services)),
        ["measurements"] => ("GET", Call::Ask(Request::Measurements)),
        ["configuration"] if method == "PUT" => {
            let dry_run = match parameters(query)?.as_slice() {
                [] => false,
                [(name, value)] if name == "dry-run" => boolean(name, value)?,
                [(name, _), ..] => return Err(unknown_parameter(name, "dry-run")),
            };
            return Ok(Call::Configure { dry_run });
        }
        ["configuration"] => ("GET, PUT", Call::Ask(Request::Configuration)),
        ["logs"] if method == "GET" => return Query::parse(&parameters(query)?).map(Call::Logs),
        ["logs"] => return Err(wrong_method(method, "GET")),
        ["update", rest @ ..] => return update(method, rest, &parameters(query)?),
        ["reboot"] => ("POST", Call::Ask(Request::Reboot)),
        ["power-off"] => ("POST", Call::Ask(Request::PowerOff)),
        ["state", "reseal"] => ("POST", Call::Reseal),
        ["services", name, action] => {
            let action = match *action {
                "start" => ServiceAction::Start,
                "stop" => ServiceAction::Stop,
                "restart" => ServiceAction::Restart,
                _ => return Err(no_such_address()),
            };
            let name = decode(name)?;
            if !is_name(&name) {
                return Err(Problem::new(
                    400,
                    RefusalKind::Invalid,
                    "the name of the service has characters that no name has",
                    "`ashlarctl services` lists the names",
                ));
            }
            ("POST", Call::Ask(Request::Service { name, action }))
        }
        _ => return Err(no_such_address()),
    };
    if !allowed.split(", ").any(|one| one == method) {
        return Err(wrong_method(method, allowed));
    }
    if let Some((name, _)) = parameters(query)?.first() {
        return Err(unknown_parameter(name, "none"));
    }
    Ok(call)
}

/// What concerns updates.
fn update(method: &str, parts: &[&str], parameters: &[(String, String)]) -> Result<Call, Problem> {
    let known: &[&str] = match parts {
        ["plan" | "stage" | "apply"] => &["version", "now", "force"],
        ["postpone"] => &["seconds"],
        ["unbar"] => &["version"],
        ["reboot"] => &["reason"],
        ["bundle"] => &["restart"],
        _ => &[],
    };
    if let Some((name, _)) = parameters.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(unknown_parameter(name, &known));
    }
    let value = |name: &str| {
        parameters.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    };
    let flag = |name: &str| value(name).map_or(Ok(false), |text| boolean(name, text));
    let version = |text: &str| {
        let good = !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if good { Ok(text.to_owned()) } else { Err(wrong_value("version", text, "a version")) }
    };
    let choice = || -> Result<Choice, Problem> {
        Ok(Choice {
            version: value("version").map(version).transpose()?,
            now: flag("now")?,
            force: flag("force")?,
        })
    };
    let (allowed, call) = match parts {
        [] => ("GET", Call::Update(UpdateRequest::Status)),
        ["history"] => ("GET", Call::Update(UpdateRequest::History)),
        ["why"] => ("GET", Call::Update(UpdateRequest::Why)),
        ["metrics"] => ("GET", Call::Update(UpdateRequest::Metrics)),
        ["plan"] => ("GET", Call::Update(UpdateRequest::Plan(choice()?))),
        ["check"] => ("POST", Call::Update(UpdateRequest::Check)),
        ["stage"] => ("POST", Call::Update(UpdateRequest::Stage(choice()?))),
        ["apply"] => ("POST", Call::Update(UpdateRequest::Apply(choice()?))),
        ["cancel"] => ("POST", Call::Update(UpdateRequest::Cancel)),
        ["rollback"] => ("POST", Call::Update(UpdateRequest::Rollback)),
        ["postpone"] => {
            let text = value("seconds").unwrap_or_default();
            let seconds =
                text.parse().map_err(|_| wrong_value("seconds", text, "a whole number of seconds"))?;
            ("POST", Call::Update(UpdateRequest::Postpone { seconds }))
        }
        ["unbar"] => {
            let version = version(value("version").unwrap_or_default())?;
            ("POST", Call::Update(UpdateRequest::Unbar { version }))
        }
        ["reboot"] => {
            let reason: String = value("reason").unwrap_or("by hand").chars().take(200).collect();
            ("POST", Call::Update(UpdateRequest::Reboot { reason }))
        }
        ["identity"] => ("GET", Call::Update(UpdateRequest::Identity)),
        ["bundle"] => ("PUT", Call::Bundle { restart: flag("restart")? }),
        _ => return Err(no_such_address()),
    };
    if method == allowed { Ok(call) } else { Err(wrong_method(method, allowed)) }
}

fn no_such_address() -> Problem {
    Problem::new(
        404,
        RefusalKind::NotFound,
        "the control API has no such address",
        "docs/how-to/control.md lists them",
    )
}

fn wrong_method(method: &str, allowed: &str) -> Problem {
    let message =
        format!("this address does not take {}; it takes {allowed}", crate::text::short(method, 16));
    Problem::new(405, RefusalKind::Invalid, message, "")
}

fn unknown_parameter(name: &str, known: &str) -> Problem {
    let message = format!("unknown parameter `{}`; known here: {known}", crate::text::short(name, 64));
    Problem::new(400, RefusalKind::Invalid, message, "")
}

/// A value of a parameter is wrong.
pub(crate) fn wrong_value(name: &str, value: &str, expected: &str) -> Problem {
    let value = crate::text::short(value, 64);
    Problem::new(400, RefusalKind::Invalid, format!("`{name}` is {expected}, not `{value}`"), "")
}

pub(crate) fn boolean(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong_value(name, value, "`true` or `false`")),
    }
}

/// Names of services and containers, as the manifest has them.
pub(crate) fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(good)
}

/// The parameters of a query, decoded, in their order.
fn parameters(query: &str) -> Result<Vec<(String, String)>, Problem> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Text of a URI without its percent signs (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, Problem> {
    let bad = || Problem::new(400, RefusalKind::Invalid, "the address has a wrong percent sign", "");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).map_err(|_| bad())?;
        bytes.extend_from_slice(&byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// Text as part of a query: all but unreserved characters (RFC 3986, section 2.3) with percent signs.
pub(crate) fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut encoded = String::new();
    for byte in text.bytes() {
        if keep(byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_address() {
        let service = |action| Call::Ask(Request::Service { name: "web".into(), action });
        let cases = [
            ("GET /v1/status", Call::Ask(Request::Status), Role::Reader),
            ("GET /v1/services", Call::Ask(Request::Services), Role::Reader),
            ("GET /v1/measurements", Call::Ask(Request::Measurements), Role::Reader),
            ("GET /v1/logs", Call::Logs(Query::default()), Role::Reader),
            ("GET /v1/configuration", Call::Ask(Request::Configuration), Role::Operator),
            ("POST /v1/services/web/start", service(ServiceAction::Start), Role::Operator),
            ("POST /v1/services/w%65b/stop", service(ServiceAction::Stop), Role::Operator),
            ("POST /v1/services/web/restart", service(ServiceAction::Restart), Role::Operator),
            ("POST /v1/reboot", Call::Ask(Request::Reboot), Role::Operator),
            ("POST /v1/power-off", Call::Ask(Request::PowerOff), Role::Operator),
            ("PUT /v1/configuration", Call::Configure { dry_run: false }, Role::Admin),
            ("PUT /v1/configuration?dry-run=true", Call::Configure { dry_run: true }, Role::Admin),
            ("PUT /v1/configuration?dry-run", Call::Configure { dry_run: true }, Role::Admin),
            ("POST /v1/state/reseal", Call::Reseal, Role::Admin),
        ];
        for (line, call, role) in cases {
            let (method, target) = line.split_once(' ').unwrap();
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            assert_eq!(route(method, path, query).as_ref(), Ok(&call), "{line}");
            assert_eq!(call.needs(), role, "{line}");
            assert_eq!(call.changes(), method != "GET", "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (method, path, query, status) in [
            ("GET", "/", None, 404),
            ("GET", "/v2/status", None, 404),
            ("GET", "/v1/../v1/status", None, 404),
            ("GET", "/v1/status/", None, 404),
            ("POST", "/v1/status", None, 405),
            ("GET", "/v1/reboot", None, 405),
            ("DELETE", "/v1/configuration", None, 405),
            ("PUT", "/v1/configuration", Some("dry-run=perhaps"), 400),
            ("PUT", "/v1/configuration", Some("dryrun=true"), 400),
            ("PUT", "/v1/configuration", Some("dry-run=true&x=1"), 400),
            ("GET", "/v1/status", Some("x=1"), 400),
            ("POST", "/v1/services/web/burn", None, 404),
            ("POST", "/v1/services/..%2fx/stop", None, 400),
            ("POST", "/v1/services/%/stop", None, 400),
            ("POST", "/v1/services/%zz/stop", None, 400),
            ("POST", "/v1/services/%ff/stop", None, 400),
            ("POST", "/v1/services//stop", None, 400),
        ] {
            let problem = route(method, path, query).unwrap_err();
            assert_eq!(problem.status, status, "{method} {path} {query:?}: {problem:?}");
        }
        assert_eq!(route("GET", &"/x".repeat(9999), None).unwrap_err().status, 414);
    }

    #[test]
    fn the_clients_encoding_is_the_servers() {
        for text in ["web", "a b&c=d%", "2026-11-25T03:00:00Z", "ä"] {
            assert_eq!(decode(&encode(text)).as_deref(), Ok(text));
        }
    }

    proptest! {
        #[test]
        fn any_address(path in "/v1/[a-z/%0-9]{0,40}", query in "[a-z=&%0-9-]{0,40}") {
            for method in ["GET", "POST", "PUT"] {
                let _ = route(method, &path, Some(&query));
            }
        }
    }
}
