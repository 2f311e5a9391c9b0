//! Metrics of the server, as OpenMetrics.

use super::answer::Answer;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Counts answers by what was asked and by the kind of the answer; both are of small number.
#[derive(Debug, Default)]
pub(super) struct Metrics(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Metrics {
    pub(super) fn count(&self, path: &str, answer: &Answer) {
        let what = match path {
            "/v1/pre-reboot" => "pre-reboot",
            "/v1/steady-state" => "steady-state",
            _ => "other",
        };
        let kind = match answer {
            Answer::Granted => "granted".to_owned(),
            Answer::Refused { failure, .. } => failure.kind.clone(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((what, kind)).or_default() += 1;
    }

    fn text(&self) -> String {
        let mut text = "# TYPE lockctl_fleetlock_requests counter\n\
                        # HELP lockctl_fleetlock_requests Requests by what was asked and how it was answered.\n"
            .to_owned();
        for ((what, kind), count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(
                text,
                "lockctl_fleetlock_requests_total{{request=\"{what}\",result=\"{kind}\"}} {count}"
            );
        }
        text + "# EOF\n"
    }

    pub(super) fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.text())));
        if path == "/metrics" {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        } else {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = Full::default();
        }
        response
    }
}
