//! From a request to its response.

use super::activity::Activity;
use super::body::{Held, ResponseBody};
use super::{Context, init, limits, log_stream};
use crate::api::{self, Call, Problem};
use crate::role::Peer;
use crate::text;
use ashlar_image::control::{RefusalKind, Reply, Request};
use ashlar_image::update::UpdateReply;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::time::{Instant, timeout};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// One JSON object a line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Longest path in the log in characters.
const MAX_SHOWN: usize = 200;

/// The body of `POST /v1/state/reseal`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recovery {
    recovery_key: String,
}

/// Answers a request, whatever it is.
pub(super) async fn handle(
    context: Arc<Context>,
    peer: Arc<Peer>,
    activity: Activity,
    request: hyper::Request<Incoming>,
) -> Response<ResponseBody> {
    let work = Arc::new(activity.begin(Instant::now() + limits::REQUEST));
    let (head, body) = request.into_parts();
    let call = match api::route(head.method.as_str(), head.uri.path(), head.uri.query()) {
        Ok(call) => call,
        Err(problem) => {
            let _ = read(body, 0).await;
            return refuse(&problem);
        }
    };
    let what = format!("{} {}", head.method, text::short(head.uri.path(), MAX_SHOWN));
    if let Err(problem) = allowed(&peer, &call) {
        eprintln!("{}: {what}: refused: {}", peer.name, problem.refusal.message);
        let _ = read(body, 0).await;
        return refuse(&problem);
    }
    let follows = matches!(&call, Call::Logs(query) if query.follow);
    let turns = if follows { &context.followers } else { &context.requests };
    let Ok(Ok(permit)) = timeout(limits::TURN, turns.clone().acquire_owned()).await else {
        return refuse(&init::busy());
    };
    let held = Held { request: work, _permit: permit };
    if let Call::Logs(query) = call {
        return match log_stream::start(&context, query, held).await {
            Ok(body) => respond(StatusCode::OK, LINES, body),
            Err(problem) => refuse(&problem),
        };
    }
    let result = match call {
        Call::Bundle { restart } => {
            context.engine.bundle(restart, body).await.and_then(|reply| encode_update(&reply))
        }
        _ => answer(&context, &call, body).await,
    };
    if call.changes() {
        match &result {
            Ok(_) => println!("{}: {what}: done", peer.name),
            Err(problem) => {
                let message = text::short(&problem.refusal.message, MAX_SHOWN);
                eprintln!("{}: {what}: refused: {message}", peer.name);
            }
        }
    }
    match result {
        Ok(None) => respond(StatusCode::NO_CONTENT, JSON, ResponseBody::whole(Bytes::new(), None)),
        Ok(Some(bytes)) => respond(StatusCode::OK, JSON, ResponseBody::whole(bytes, Some(held))),
        Err(problem) => refuse(&problem),
    }
}

/// The answer of PID 1 or of the update engine, in JSON.
async fn answer(context: &Context, call: &Call, body: Incoming) -> Result<Option<Vec<u8>>, Problem> {
    if let Call::Update(request) = call {
        read(body, 0).await?;
        return encode_update(&context.engine.ask(request).await?);
    }
    encode(&ask(context, call, body).await?)
}

/// Whether the peer may.
fn allowed(peer: &Peer, call: &Call) -> Result<(), Problem> {
    let forbidden =
        |message: String, advice: String| Err(Problem::new(403, RefusalKind::Forbidden, message, advice));
    let needed = call.needs();
    match peer.role {
        Ok(role) if role >= needed => Ok(()),
        Ok(role) => forbidden(
            format!("this needs the role `{needed}`; the client certificate gives `{role}`"),
            format!(
                "use the identity of one who is `{needed}`, or make one: ashlarctl identity new NAME --role {needed}"
            ),
        ),
        Err(why) => forbidden(
            why.to_string(),
            "make the client certificate with `ashlarctl identity new NAME --role ROLE`, or with one of \
             OU=reader, OU=operator, OU=admin in its subject"
                .into(),
        ),
    }
}

/// Reads the body that goes with the call, then asks PID 1.
async fn ask(context: &Context, call: &Call, body: Incoming) -> Result<Reply, Problem> {
    let bytes = read(body, call.max_body()).await?;
    let text = || {
        String::from_utf8(bytes.clone())
            .map_err(|_| Problem::new(400, RefusalKind::Invalid, "the body is no UTF-8 text", ""))
    };
    match call {
        Call::Ask(request) => context.init.ask(request).await,
        Call::Configure { dry_run } => {
            context.init.ask(&Request::Configure { envelope: text()?, dry_run: *dry_run }).await
        }
        Call::Reseal => {
            let recovery: Recovery = serde_json::from_slice(&bytes).map_err(|_| {
                // What is wrong might be the key itself: it is not repeated.
                let expected = "the body must be {\"recovery_key\": \"...\"}";
                Problem::new(400, RefusalKind::Invalid, expected, "")
            })?;
            context.init.ask(&Request::Reseal { recovery_key: recovery.recovery_key }).await
        }
        // Not for PID 1.
        Call::Logs(_) | Call::Update(_) | Call::Bundle { .. } => {
            Err(Problem::new(500, RefusalKind::Failed, "this is no question for PID 1", ""))
        }
    }
}

/// A body of at most `max` bytes, in time. One that is too long is read on for a while and thrown away: a client that is
/// cut off while it sends may never see the answer.
async fn read(mut body: Incoming, max: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    let all = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
                return Err(Problem::new(400, RefusalKind::Invalid, "the body has broken off", ""));
            };
            length = length.saturating_add(data.len());
            if length <= max {
                bytes.extend_from_slice(&data);
            } else if length > max.saturating_add(limits::DISCARD) {
                break;
            }
        }
        Ok(())
    };
    let result = timeout(limits::BODY, all).await;
    if length > max {
        let message = format!("the body is longer than {max} bytes");
        return Err(Problem::new(413, RefusalKind::Invalid, message, ""));
    }
    match result {
        Ok(result) => result.map(|()| bytes),
        Err(_) => {
            let message = format!("the body did not come within {} s", limits::BODY.as_secs());
            Err(Problem::new(408, RefusalKind::Invalid, message, "try again"))
        }
    }
}

/// The JSON of a reply; none where there is nothing to say.
fn encode(reply: &Reply) -> Result<Option<Vec<u8>>, Problem> {
    fn json(value: &impl Serialize) -> serde_json::Result<Option<Vec<u8>>> {
        serde_json::to_vec(value).map(Some)
    }
    match reply {
        Reply::Done => Ok(None),
        Reply::Status(status) => json(status),
        Reply::Services(services) => json(services),
        Reply::Configuration(configuration) => json(configuration),
        Reply::Applied(applied) => json(applied),
        Reply::Measurements(measurements) => json(measurements),
    }
    .map_err(|error| Problem::new(500, RefusalKind::Failed, error.to_string(), ""))
}

fn encode_update(reply: &UpdateReply) -> Result<Option<Vec<u8>>, Problem> {
    fn json(value: &impl Serialize) -> serde_json::Result<Option<Vec<u8>>> {
        serde_json::to_vec(value).map(Some)
    }
    match reply {
        UpdateReply::Status(status) => json(status),
        UpdateReply::Plan(plan) => json(plan),
        UpdateReply::History(history) => json(history),
        UpdateReply::Why(whys) => json(whys),
        UpdateReply::Metrics(text) => json(text),
        UpdateReply::Identity(identity) => json(identity),
    }
    .map_err(|error| Problem::new(500, RefusalKind::Failed, error.to_string(), ""))
}

fn refuse(problem: &Problem) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = serde_json::to_vec(&problem.refusal).unwrap_or_default();
    respond(status, JSON, ResponseBody::whole(bytes, None))
}

fn respond(status: StatusCode, kind: HeaderValue, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
