//! What a client sends to the control API, and the certificate that it shows; lines of the log; what an operator types.
#![no_main]

use ashlar_control::api::{self, Call};
use ashlar_control::client::Target;
use ashlar_control::fingerprint::Fingerprint;
use ashlar_control::logs::query::{Filter, Query};
use ashlar_control::role::Peer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Peer::of_certificate(data);
    let query = match std::str::from_utf8(data) {
        Ok(text) => {
            let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
            for method in ["GET", "POST", "PUT"] {
                if let Ok(call) = api::route(method, path, query) {
                    let _ = (call.needs(), call.changes(), call.max_body());
                }
            }
            let _ = (text.parse::<Target>().map(|target| target.to_string().parse::<Target>()), text.parse::<Fingerprint>());
            match api::route("GET", "/v1/logs", Some(text)) {
                // What the client writes is what the server reads.
                Ok(Call::Logs(query)) => {
                    let again = api::route("GET", "/v1/logs", Some(&query.to_parameters()));
                    assert_eq!(again, Ok(Call::Logs(query.clone())));
                    query
                }
                _ => Query::default(),
            }
        }
        Err(_) => Query::default(),
    };
    let _ = Filter::new(&query, None).wants(data);
});
