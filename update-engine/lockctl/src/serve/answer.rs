//! What is asked, and what is answered: the FleetLock protocol without a network.

use ashlar_lock::fleetlock::{Body, Failure, HEADER, is_group};
use ashlar_lock::{Group, HolderId, Lock, LockError, Refusal, Request, Store, StoreError};
use hyper::Method;
use hyper::http::request::Parts;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    /// Take a place, if there is none yet.
    PreReboot,
    /// Give it back, if there is one.
    SteadyState,
}

/// By whom.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    what: Answering,
    id: HolderId,
    group: Group,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    Refused { status: u16, failure: Failure },
}

pub(super) fn failure(status: u16, kind: &str, value: &str) -> Answer {
    Answer::Refused { status, failure: Failure { kind: kind.into(), value: value.into() } }
}

impl Answering {
    /// By path, method and headers.
    pub(super) fn of(head: &Parts) -> Result<Self, Answer> {
        let what = match head.uri.path() {
            "/v1/pre-reboot" => Self::PreReboot,
            "/v1/steady-state" => Self::SteadyState,
            _ => return Err(failure(404, "unknown_path", "there are /v1/pre-reboot and /v1/steady-state")),
        };
        if head.method != Method::POST {
            return Err(failure(405, "method_not_allowed", "only POST is known"));
        }
        if head.headers.get(HEADER).is_none_or(|value| value != "true") {
            return Err(failure(400, "missing_header", "the header `fleet-lock-protocol: true` is missing"));
        }
        Ok(what)
    }

    /// By the body.
    pub(super) fn parse(self, body: &[u8]) -> Result<Asked, Answer> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| failure(400, "decode_error", &format!("the body cannot be read: {error}")))?;
        let params = body.client_params;
        let wrong = |text: &str| failure(400, "invalid_client_identity", text);
        if !is_group(&params.group) {
            return Err(wrong("`group` must have letters, digits, `.` and `-`, at most 128 of them"));
        }
        let id = params
            .id
            .parse()
            .map_err(|_| wrong("`id` must have 1 to 128 printable characters without spaces and `/`"))?;
        let group = params.group.parse().map_err(|_| wrong("`group` is too long"))?;
        Ok(Asked { what: self, id, group })
    }
}

impl Asked {
    /// Does it.
    pub(super) fn ask<S: Store>(&self, lock: &mut Lock<S>) -> Answer {
        lock.set_group(self.group.clone());
        let result = match self.what {
            // Its wish is always the same, so that asking again changes nothing. Its turn is when a place is free: it does not
            // stand in the queue, as the protocol has none.
            Answering::PreReboot => {
                let mut request = Request::new(self.id.clone(), "FleetLock");
                "fleetlock".clone_into(&mut request.token);
                lock.try_lock(&request, false).map(drop)
            }
            Answering::SteadyState => lock.unlock_if_held(&self.id, true, "FleetLock"),
        };
        match result {
            Ok(()) => Answer::Granted,
            Err(LockError::Refused(Refusal::Full)) => {
                let holders = lock.read().map(|seen| seen.semaphore.holders).unwrap_or_default();
                let ids: Vec<&str> = holders.iter().take(5).map(|holder| holder.id.as_str()).collect();
                failure(423, "lock_held", &format!("all places are taken, by {}", ids.join(", ")))
            }
            Err(LockError::Refused(refusal)) => failure(423, "refused", &refusal.to_string()),
            Err(error @ (LockError::Behind | LockError::Contended)) => {
                failure(503, "conflict", &error.to_string())
            }
            Err(LockError::Store(error)) => {
                let (status, kind) = match error {
                    StoreError::Unavailable(_) => (503, "backend_unavailable"),
                    StoreError::Refused(_) => (500, "backend_refused"),
                    StoreError::Damaged { .. } => (500, "backend_damaged"),
                };
                failure(status, kind, &error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str, header: Option<&str>) -> Parts {
        let mut request = hyper::Request::builder().method(method).uri(path);
        if let Some(value) = header {
            request = request.header(HEADER, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn kind(answer: Answer) -> (u16, String) {
        match answer {
            Answer::Granted => (200, String::new()),
            Answer::Refused { status, failure } => (status, failure.kind),
        }
    }

    #[test]
    fn requests() {
        assert_eq!(Answering::of(&head("POST", "/v1/pre-reboot", Some("true"))), Ok(Answering::PreReboot));
        for (method, path, header, status, wanted) in [
            ("GET", "/v1/pre-reboot", Some("true"), 405, "method_not_allowed"),
            ("PUT", "/v1/steady-state", Some("true"), 405, "method_not_allowed"),
            ("POST", "/v1/pre-reboot", None, 400, "missing_header"),
            ("POST", "/v1/pre-reboot", Some("false"), 400, "missing_header"),
            ("POST", "/v1/other", Some("true"), 404, "unknown_path"),
            ("POST", "/", Some("true"), 404, "unknown_path"),
        ] {
            assert_eq!(
                kind(Answering::of(&head(method, path, header)).unwrap_err()),
                (status, wanted.into())
            );
        }
    }

    #[test]
    fn bodies() {
        let parse = |body: &str| Answering::PreReboot.parse(body.as_bytes());
        let good = parse(r#"{"client_params":{"id":"c988","group":"work.er-1"},"more":1}"#).unwrap();
        assert_eq!((good.id.as_str(), good.group.to_string().as_str()), ("c988", "work.er-1"));
        for body in ["", "{}", "[]", "{\"client_params\":{}}", r#"{"client_params":{"group":"a"}}"#, "\u{0}"]
        {
            assert_eq!(kind(parse(body).unwrap_err()), (400, "decode_error".into()), "{body}");
        }
        for (id, group) in
            [("", "a"), ("a", ""), ("a", "b/c"), ("a", "b c"), ("a b", "a"), ("a/b", "a"), ("a", "ü")]
        {
            let body = serde_json::json!({ "client_params": { "id": id, "group": group } }).to_string();
            assert_eq!(kind(parse(&body).unwrap_err()), (400, "invalid_client_identity".into()), "{body}");
        }
    }
}
